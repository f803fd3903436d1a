#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

// One line per event: `level event key=value key=value` as text, or one JSON object. Never log a
// prompt, an output, or a key. Any thread.

namespace asymserve {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat : uint8_t { kText, kJson };

/// By its name: debug, info, warn, error, off. Absent: no level has it.
std::optional<LogLevel> ParseLogLevel(std::string_view name);
std::string_view LogLevelName(LogLevel level);

/// One key and its value. Values with spaces, quotes or control characters are quoted and escaped;
/// bytes that are not UTF-8 become U+FFFD.
struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v), is_text(true) {}
  LogField(std::string_view k, const char* v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, const std::string& v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false"), is_text(false) {}
  LogField(std::string_view k, int v) : key(k), value(std::to_string(v)), is_text(false) {}
  LogField(std::string_view k, int64_t v) : key(k), value(std::to_string(v)), is_text(false) {}
  LogField(std::string_view k, uint64_t v) : key(k), value(std::to_string(v)), is_text(false) {}
  LogField(std::string_view k, double v);

  std::string_view key;
  std::string value;
  bool is_text;  // quoted in JSON
};

/// Sets the process-wide sink once, in main. Before that, lines of kInfo and up go to stderr as
/// text.
void InitLog(LogLevel level, LogFormat format);

/// The least severe lines that are written from now on.
void SetLogLevel(LogLevel level);

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

/// The line that Log writes after its time stamp; exposed for tests.
std::string FormatLogLine(LogLevel level, LogFormat format, std::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace asymserve
