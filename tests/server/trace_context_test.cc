#include "server/trace_context.h"

#include <gmock/gmock.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kParent[] = "00f067aa0ba902b7";

TEST(TraceContextTest, TakesValidValuesOfThisVersionAndOfLaterOnes) {
  const std::string ids = std::string("-") + kTrace + "-" + kParent + "-";
  for (const std::string& value : {
           "00" + ids + "01",
           "00" + ids + "00",
           "00" + ids + "ff",  // flags that nobody has defined yet
           "01" + ids + "01",
           "cc" + ids + "01-",
           "fe" + ids + "01-what-the-future-brings",
       }) {
    EXPECT_EQ(ParseTraceParent(value), (TraceContext{kTrace, kParent})) << value;
  }
  EXPECT_EQ(ParseTraceParent("00-00000000000000000000000000000001-0000000000000001-00"),
            (TraceContext{"00000000000000000000000000000001", "0000000000000001"}));
}

TEST(TraceContextTest, IgnoresWhatTheSpecificationForbids) {
  for (const std::string_view value : {
           "",
           "-",
           "00",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",      // no flags
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",    // half of them
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",   // no hex
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",   // upper case
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",  // longer than 00 is
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",  // no dash
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",   // shorter than 00 is
           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",  // no version
           "FE-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "0-4bf92f3577b34da6a3ce929d0e0e47360-00f067aa0ba902b7-01",
           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",  // no id
           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
           "cc-00000000000000000000000000000000-00f067aa0ba902b7-01-more",
           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",   // a digit missing
           "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b70-01",  // or in another field
           "00-4bf92f3577b34da6a3ce929d0e0e473.-00f067aa0ba902b7-01",
           "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
           " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
       }) {
    EXPECT_EQ(ParseTraceParent(value), std::nullopt) << value;
  }
}

TEST(TraceContextTest, OfACallIsItsOnlyTraceparent) {
  const std::string value = std::string("00-") + kTrace + "-" + kParent + "-01";
  const auto of = [&](const std::vector<std::string>& values) {
    std::multimap<grpc::string_ref, grpc::string_ref> metadata = {{"tracestate", "a=b"}};
    for (const std::string& one : values) metadata.emplace("traceparent", one);
    return TraceContextOf(metadata);
  };
  EXPECT_EQ(of({value}), (TraceContext{kTrace, kParent}));
  EXPECT_EQ(of({}), (TraceContext{"-", "-"}));
  EXPECT_EQ(of({value, value}), (TraceContext{"-", "-"}));
  EXPECT_EQ(of({"injected=\"yes\""}), (TraceContext{"-", "-"}));
}

class TraceLogTest : public ProcessFixture {
 protected:
  /// A call of each kind with a `traceparent`; the third is refused.
  void CallWith(const std::string& traceparent) {
    const auto call = [&](const auto& run) {
      grpc::ClientContext context;
      context.AddMetadata("traceparent", traceparent);
      return run(context).error_code();
    };
    using grpc::StatusCode;
    v1::GenerateUnaryResponse generated;
    EXPECT_EQ(call([&](grpc::ClientContext& context) {
                return stub_->GenerateUnary(&context, Request("a", 2), &generated);
              }),
              StatusCode::OK);
    v1::TokenizeResponse tokenized;
    EXPECT_EQ(call([&](grpc::ClientContext& context) {
                return stub_->Tokenize(&context, v1::TokenizeRequest(), &tokenized);
              }),
              StatusCode::OK);
    EXPECT_EQ(call([&](grpc::ClientContext& context) {
                return stub_->GenerateUnary(&context, Request("", 2), &generated);
              }),
              StatusCode::INVALID_ARGUMENT);
  }
  /// Of the log so far; the last one may be half there and is left out then.
  std::vector<std::string> LinesWith(const std::string& text) {
    const std::string log = server_->log();
    std::istringstream lines(log.substr(0, log.rfind('\n') + 1));
    std::vector<std::string> found;
    for (std::string line; std::getline(lines, line);) {
      if (line.find(text) != std::string::npos) found.push_back(line);
    }
    return found;
  }
};

TEST_F(TraceLogTest, EveryRequestLineNamesTheTraceAndTheCallersSpan) {
  ASSERT_NO_FATAL_FAILURE(Start());
  CallWith("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  EXPECT_TRUE(Eventually([&] {
    return LinesWith(" trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_id=00f067aa0ba902b7")
               .size() == 3;
  })) << server_->log();
  CallWith("00-NOT-A-TRACE");
  EXPECT_TRUE(Eventually([&] { return LinesWith(" trace_id=- parent_id=-").size() == 3; }));
  EXPECT_THAT(server_->log(), Not(HasSubstr("NOT-A-TRACE")));
}

TEST_F(TraceLogTest, SoDoLinesOfJson) {
  server_ = std::make_unique<ServerProcess>(
      std::vector<std::string>{"--model", model_path_, "--set", "engine.threads=1", "--set",
                               "engine.kv_memory_bytes=64MiB", "--set", "log.format=json"});
  const std::string serving = R"("event":"serving")", request = R"("event":"request")";
  ASSERT_TRUE(server_->WaitForLog(serving)) << server_->log();
  const auto line = nlohmann::json::parse(LinesWith(serving).at(0));
  stub_ = v1::Inference::NewStub(grpc::CreateChannel(line.at("address").get<std::string>(),
                                                     grpc::InsecureChannelCredentials()));
  CallWith("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  ASSERT_TRUE(Eventually([&] { return LinesWith(request).size() == 3; })) << server_->log();
  for (const std::string& text : LinesWith(request)) {
    const auto fields = nlohmann::json::parse(text);
    EXPECT_EQ(fields.at("trace_id"), kTrace);
    EXPECT_EQ(fields.at("parent_id"), kParent);
  }
}

}  // namespace
}  // namespace asymserve::testing
