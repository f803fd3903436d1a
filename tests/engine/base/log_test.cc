#include "engine/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace asymserve {
namespace {

using nlohmann::json;

std::string Text(std::initializer_list<LogField> fields) {
  return FormatLogLine(LogLevel::kInfo, LogFormat::kText, "event", fields);
}

// JSON lines have no braces of their own: the sink puts them around the line and the time.
json Json(std::initializer_list<LogField> fields) {
  return json::parse("{" + FormatLogLine(LogLevel::kWarn, LogFormat::kJson, "event", fields) + "}");
}

TEST(LogTest, WritesKeysAndValuesInTheirOrder) {
  EXPECT_EQ(Text({}), "info event");
  EXPECT_EQ(Text({{"id", 7},
                  {"bytes", uint64_t{18446744073709551615u}},
                  {"left", int64_t{-9}},
                  {"ok", true},
                  {"seconds", 0.125},
                  {"code", "OK"}}),
            "info event id=7 bytes=18446744073709551615 left=-9 ok=true seconds=0.125 code=OK");
}

TEST(LogTest, QuotesValuesThatWouldBreakTheLine) {
  EXPECT_EQ(Text({{"a", ""}}), "info event a=\"\"");
  EXPECT_EQ(Text({{"a", "b c"}}), "info event a=\"b c\"");
  EXPECT_EQ(Text({{"a", "b=c"}}), "info event a=\"b=c\"");
  EXPECT_EQ(Text({{"a", "say \"x\"\\"}}), "info event a=\"say \\\"x\\\"\\\\\"");
  EXPECT_EQ(Text({{"a", "x\nb=1\r\x1b"}}), "info event a=\"x\\u000ab=1\\u000d\\u001b\"");
  EXPECT_EQ(Text({{"a", std::string_view("x\0y", 3)}}), "info event a=\"x\\u0000y\"");
  EXPECT_EQ(Text({{"a", "d\u00e9j\u00e0"}}), "info event a=d\u00e9j\u00e0");
}

TEST(LogTest, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  EXPECT_EQ(Text({{"a", "x\xff\xc3"}}), "info event a=\"x\uFFFD\uFFFD\"");
  EXPECT_EQ(Json({{"a", "\xc3\xa9\xed\xa0\x80"}})["a"], "\u00e9\uFFFD\uFFFD\uFFFD");
}

TEST(LogTest, AJsonLineHoldsTheValuesWithTheirTypes) {
  const json line = Json({{"id", 7},
                          {"ok", false},
                          {"seconds", 0.125},
                          {"text", "7"},
                          {"odd", "a \"b\"\n\\\x01 \u00e9"}});
  EXPECT_EQ(line["level"], "warn");
  EXPECT_EQ(line["event"], "event");
  EXPECT_EQ(line["id"], 7);
  EXPECT_EQ(line["ok"], false);
  EXPECT_EQ(line["seconds"], 0.125);
  EXPECT_EQ(line["text"], "7");
  EXPECT_EQ(line["odd"], "a \"b\"\n\\\x01 \u00e9");
}

TEST(LogTest, NumbersThatJsonLacksBecomeText) {
  const json line = Json({{"inf", std::numeric_limits<double>::infinity()}, {"nan", std::nan("")}});
  EXPECT_EQ(line["inf"], "inf");
  EXPECT_EQ(line["nan"], "nan");
}

TEST(LogTest, WritesEveryLevelAtOrAboveTheOneThatIsSetAsOneJsonLineEach) {
  InitLog(LogLevel::kWarn, LogFormat::kJson);
  testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "hidden");
  Log(LogLevel::kWarn, "first", {{"text", "{} %v %% \n"}});
  Log(LogLevel::kError, "second");
  const std::string output = testing::internal::GetCapturedStderr();
  const size_t newline = output.find('\n');
  ASSERT_NE(newline, std::string::npos) << output;
  const json first = json::parse(output.substr(0, newline));
  const json second = json::parse(output.substr(newline + 1));
  EXPECT_EQ(first["event"], "first");
  EXPECT_EQ(first["text"], "{} %v %% \n");
  EXPECT_EQ(second["level"], "error");
  EXPECT_THAT(first["time"].get<std::string>(),
              ::testing::MatchesRegex("[0-9]+-[0-9]+-[0-9]+T[0-9]+:[0-9]+:[0-9]+\\.[0-9]+Z"));
}

TEST(LogTest, ALevelThatIsSetLaterCountsFromTheNextLine) {
  InitLog(LogLevel::kInfo, LogFormat::kText);
  testing::internal::CaptureStderr();
  SetLogLevel(LogLevel::kError);
  Log(LogLevel::kWarn, "hidden");
  SetLogLevel(LogLevel::kDebug);
  Log(LogLevel::kDebug, "shown");
  const std::string output = testing::internal::GetCapturedStderr();
  EXPECT_THAT(output, ::testing::EndsWith("Z debug shown\n"));
  EXPECT_EQ(output.find("hidden"), std::string::npos);
  SetLogLevel(LogLevel::kInfo);
}

TEST(LogTest, LevelsAreKnownByTheirNamesOnly) {
  for (const LogLevel level :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError, LogLevel::kOff}) {
    EXPECT_EQ(ParseLogLevel(LogLevelName(level)), level);
  }
  EXPECT_EQ(LogLevelName(LogLevel::kWarn), "warn");
  for (const char* name : {"", "Info", "warning", "2"}) EXPECT_FALSE(ParseLogLevel(name)) << name;
}

/// Puts a pipe in the place of stderr.
class StderrPipe {
 public:
  StderrPipe() : saved_(dup(STDERR_FILENO)) {
    EXPECT_EQ(pipe(ends_), 0);
    dup2(ends_[1], STDERR_FILENO);
    close(ends_[1]);
  }
  ~StderrPipe() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    close(ends_[0]);
  }
  /// What is in the pipe.
  std::string Read() const {
    std::string text;
    char buffer[4096];
    pollfd readable = {ends_[0], POLLIN, 0};
    while (poll(&readable, 1, 0) == 1) {
      text.append(buffer, static_cast<size_t>(read(ends_[0], buffer, sizeof(buffer))));
    }
    return text;
  }

 private:
  const int saved_;
  int ends_[2] = {-1, -1};
};

TEST(LogTest, APipeThatNobodyReadsCostsLinesAndNoTime) {
  InitLog(LogLevel::kInfo, LogFormat::kText);
  constexpr int kLines = 5000;
  const StderrPipe pipe;
  for (int i = 0; i < kLines; ++i) Log(LogLevel::kInfo, "line", {{"number", i}});
  const std::string kept = pipe.Read();
  const auto lines = std::count(kept.begin(), kept.end(), '\n');
  EXPECT_GT(lines, 100);
  EXPECT_LT(lines, kLines);
  EXPECT_EQ(kept.back(), '\n');
  Log(LogLevel::kInfo, "after", {});
  const std::string after = pipe.Read();
  EXPECT_THAT(after, ::testing::HasSubstr(
                         "warn log_lines_lost count=" + std::to_string(kLines - lines) + "\n"));
  EXPECT_THAT(after, ::testing::HasSubstr("info after\n"));
}

}  // namespace
}  // namespace asymserve
