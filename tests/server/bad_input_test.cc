#include <gmock/gmock.h>

#include <cmath>

#include "tests/server/process_fixture.h"
#include "tests/server/raw_call.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class BadInputTest : public ProcessFixture {
 protected:
  /// Sends bytes as a GenerateUnary request.
  grpc::Status SendRaw(const std::string& wire) {
    return RawCall(server_->Channel(), "/asymserve.v1.Inference/GenerateUnary", wire);
  }

  void ExpectStillServing() {
    EXPECT_TRUE(Unary(Request("hello", 3)).ok());
    EXPECT_FALSE(server_->WaitForExit(std::chrono::seconds(0)).has_value());
  }
};

TEST_F(BadInputTest, ADeadlineOfCenturiesIsNone) {
  ASSERT_NO_FATAL_FAILURE(Start());
  for (const int64_t years : {9, 11, 250, 280}) {
    grpc::ClientContext context;
    gpr_timespec deadline = gpr_now(GPR_CLOCK_REALTIME);
    deadline.tv_sec += years * 365 * 24 * 3600;
    context.set_deadline(deadline);
    v1::GenerateUnaryResponse response;
    const grpc::Status status = stub_->GenerateUnary(&context, Request("hello", 3), &response);
    EXPECT_TRUE(status.ok()) << years << ": " << status.error_message();
  }
}

TEST_F(BadInputTest, EveryBadRequestIsInvalidArgumentThatNamesTheField) {
  ASSERT_NO_FATAL_FAILURE(Start());
  struct Case {
    const char* field;
    std::function<void(v1::GenerateRequest&)> spoil;
  };
  const Case cases[] = {
      {"prompt: is missing", [](auto& r) { r.clear_input(); }},
      {"prompt: is empty", [](auto& r) { r.set_prompt(""); }},
      {"prompt_token_ids: is empty", [](auto& r) { r.mutable_prompt_token_ids(); }},
      {"prompt: has", [](auto& r) { r.set_prompt(std::string(100'000, 'q')); }},
      {"prompt_token_ids: token id 288",
       [](auto& r) { r.mutable_prompt_token_ids()->add_ids(288); }},
      {"prompt_token_ids: token id -1", [](auto& r) { r.mutable_prompt_token_ids()->add_ids(-1); }},
      {"sampling.temperature", [](auto& r) { r.mutable_sampling()->set_temperature(NAN); }},
      {"sampling.temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-1); }},
      {"sampling.top_k", [](auto& r) { r.mutable_sampling()->set_top_k(-5); }},
      {"sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(0); }},
      {"sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(INFINITY); }},
      {"sampling.min_p", [](auto& r) { r.mutable_sampling()->set_min_p(1.5f); }},
      {"sampling.typical_p", [](auto& r) { r.mutable_sampling()->set_typical_p(-0.1f); }},
      {"sampling.repetition_penalty",
       [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); }},
      {"sampling.frequency_penalty",
       [](auto& r) { r.mutable_sampling()->set_frequency_penalty(3); }},
      {"sampling.presence_penalty",
       [](auto& r) { r.mutable_sampling()->set_presence_penalty(-3); }},
      {"sampling.logit_bias",
       [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[1 << 20] = 1; }},
      {"sampling.logit_bias",
       [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[3] = NAN; }},
      {"stop.max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(-1); }},
      {"stop.max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(kContext); }},
      {"stop.min_tokens", [](auto& r) { r.mutable_stop()->set_min_tokens(9); }},
      {"stop.strings", [](auto& r) { r.mutable_stop()->add_strings(""); }},
      {"stop.strings", [](auto& r) { r.mutable_stop()->add_strings(std::string(257, 'x')); }},
      {"stop.token_ids", [](auto& r) { r.mutable_stop()->add_token_ids(-7); }},
      {"n: 0", [](auto& r) { r.set_n(0); }},
      {"n: 17", [](auto& r) { r.set_n(17); }},
      {"logprobs: -1", [](auto& r) { r.set_logprobs(-1); }},
      {"kv_precision: 7", [](auto& r) { r.set_kv_precision(static_cast<v1::KvPrecision>(7)); }},
      {"logprobs: 21", [](auto& r) { r.set_logprobs(21); }},
      {"priority: 101", [](auto& r) { r.set_priority(101); }},
      {"priority: -101", [](auto& r) { r.set_priority(-101); }},
      {"max_queue_ms: 0", [](auto& r) { r.set_max_queue_ms(0); }},
      {"max_queue_ms: 86400001", [](auto& r) { r.set_max_queue_ms(86'400'001); }},
      {"truncate_prompt_tokens: 0", [](auto& r) { r.set_truncate_prompt_tokens(0); }},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.field);
    v1::GenerateRequest request = Request("hello", 8);
    one.spoil(request);
    const grpc::Status status = Unary(request);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), ::testing::StartsWith(one.field));
  }
  EXPECT_EQ(server_->Metrics()["asymserve_rejections_total{reason=\"invalid\"}"],
            static_cast<double>(std::size(cases)));
  ExpectStillServing();
}

TEST_F(BadInputTest, InvalidUtf8AndMalformedBytesAreInvalidArgument) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const grpc::Status utf8 =
      SendRaw(std::string("\x0A\x03"
                          "a\xFFz"));
  EXPECT_EQ(utf8.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(utf8.error_message(), "prompt: invalid UTF-8 at byte 1");
  const grpc::Status cut_off = SendRaw(std::string("\x22\x7F"));
  EXPECT_EQ(cut_off.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(cut_off.error_message(), HasSubstr("stop: cut off"));
  EXPECT_THAT(server_->log(), ::testing::Not(HasSubstr("libprotobuf")));
  ExpectStillServing();
}

TEST_F(BadInputTest, AMessageOfAHundredMegabytesIsRefusedByItsSize) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const grpc::Status status = Unary(Request(std::string(100'000'000, 'x'), 3));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("4194304"));
  ExpectStillServing();
}

TEST_F(BadInputTest, ACompressedMessageIsRefusedAndNeverInflated) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto runtime_bytes = [&] {
    return server_->Metrics()["asymserve_memory_measured_bytes{class=\"runtime\"}"];
  };
  const double before = runtime_bytes();
  for (const size_t megabytes : {1, 200}) {  // on the wire both are far below the limit
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    v1::GenerateUnaryResponse response;
    const grpc::Status status = stub_->GenerateUnary(
        &context, Request(std::string(megabytes * 1'000'000, 'x'), 3), &response);
    EXPECT_EQ(status.error_code(), StatusCode::UNIMPLEMENTED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("gzip"));
  }
  EXPECT_GT(before, 0);
  EXPECT_LT(runtime_bytes() - before, 64e6);
  ExpectStillServing();
}

TEST_F(BadInputTest, AnUnknownMethodIsUnimplemented) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(RawCall(server_->Channel(), "/asymserve.v1.Inference/Nonsense").error_code(),
            StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace asymserve::testing
