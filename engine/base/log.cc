#include "engine/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <mutex>

#include "spdlog/sinks/base_sink.h"
#include "spdlog/spdlog.h"
#include "utf8proc.h"

namespace asymserve {
namespace {

std::atomic<LogFormat> g_format{LogFormat::kText};

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%eZ %v";
constexpr const char* kJsonPattern = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ",%v})";

constexpr std::string_view kNames[] = {"debug", "info", "warn", "error", "off"};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

/// Bytes of the valid UTF-8 sequence at the front of `text`, 0 when it starts with none.
size_t Utf8Length(std::string_view text) {
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  return length > 0 ? static_cast<size_t>(length) : 0;
}

/// A collector refuses a line that is not UTF-8: what is not becomes U+FFFD, byte by byte.
void AppendQuoted(std::string_view text, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const char c = text.front();
    size_t length = 1;
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned char>(c));
      out += escaped;
    } else if (static_cast<unsigned char>(c) < 0x80) {
      out += c;
    } else if ((length = Utf8Length(text)) > 0) {
      out += text.substr(0, length);
    } else {
      length = 1;
      out += "\xEF\xBF\xBD";
    }
    text.remove_prefix(length);
  }
  out += '"';
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  while (!text.empty()) {
    const char c = text.front();
    const size_t length = Utf8Length(text);
    if (static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '=' || c == '\\') return true;
    if (length == 0) return true;
    text.remove_prefix(length);
  }
  return false;
}

/// Writes to a descriptor and never waits for its reader: a pipe with less room than PIPE_BUF is
/// not writable, and a line of no more than that goes in whole. What cannot be written is counted,
/// and the count is written before the next line that can.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int descriptor) : descriptor_(descriptor) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (dropped_ > 0 && Write(Format(DroppedLine(message)))) dropped_ = 0;
    if (!Write(Format(message))) ++dropped_;
  }
  void flush_() override {}

 private:
  std::string Format(const spdlog::details::log_msg& message) {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    // A reader of lines still sees where a cut one ends.
    if (line.size() > PIPE_BUF) {
      line.resize(PIPE_BUF);
      line[PIPE_BUF - 1] = '\n';
    }
    return {line.data(), line.size()};
  }
  spdlog::details::log_msg DroppedLine(const spdlog::details::log_msg& like) {
    dropped_line_ = FormatLogLine(LogLevel::kWarn, g_format.load(std::memory_order_relaxed),
                                  "log_lines_lost", {{"count", dropped_}});
    return {like.time, like.source, like.logger_name, spdlog::level::warn, dropped_line_};
  }
  bool Write(const std::string& line) const {
    pollfd writable = {descriptor_, POLLOUT, 0};
    if (poll(&writable, 1, 0) != 1 || (writable.revents & POLLOUT) == 0) return false;
    return write(descriptor_, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  }

  const int descriptor_;
  uint64_t dropped_ = 0;
  std::string dropped_line_;
};

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>("asymserve",
                                                 std::make_shared<DescriptorSink>(STDERR_FILENO));
    made->set_pattern(kTextPattern, spdlog::pattern_time_type::utc);
    return made;
  }();
  return *logger;
}

}  // namespace

LogField::LogField(std::string_view k, double v) : key(k), is_text(!std::isfinite(v)) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", v);
  value = text;
}

std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) return std::nullopt;
  return static_cast<LogLevel>(found - std::begin(kNames));
}

std::string_view LogLevelName(LogLevel level) {
  return kNames[static_cast<size_t>(level)];
}

void SetLogLevel(LogLevel level) {
  Logger().set_level(ToSpdlog(level));
}

void InitLog(LogLevel level, LogFormat format) {
  g_format.store(format, std::memory_order_relaxed);
  Logger().set_level(ToSpdlog(level));
  Logger().set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern,
                       spdlog::pattern_time_type::utc);
}

std::string FormatLogLine(LogLevel level, LogFormat format, std::string_view event,
                          std::initializer_list<LogField> fields) {
  std::string line;
  if (format == LogFormat::kJson) {
    line += "\"level\":";
    AppendQuoted(LogLevelName(level), line);
    line += ",\"event\":";
    AppendQuoted(event, line);
    for (const LogField& field : fields) {
      line += ',';
      AppendQuoted(field.key, line);
      line += ':';
      if (field.is_text) {
        AppendQuoted(field.value, line);
      } else {
        line += field.value;
      }
    }
    return line;
  }
  line += LogLevelName(level);
  line += ' ';
  line += event;
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    if (NeedsQuotes(field.value)) {
      AppendQuoted(field.value, line);
    } else {
      line += field.value;
    }
  }
  return line;
}

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const spdlog::level::level_enum wanted = ToSpdlog(level);
  if (!Logger().should_log(wanted)) return;
  const LogFormat format = g_format.load(std::memory_order_relaxed);
  Logger().log(wanted, spdlog::string_view_t("{}"), FormatLogLine(level, format, event, fields));
}

}  // namespace asymserve
