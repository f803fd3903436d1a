#include "engine/runtime/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace asymserve {
namespace {

constexpr RequestLimits kLimits{100, 50};

GenerateRequest Valid() {
  GenerateRequest request;
  request.prompt = {1, 2, 3};
  request.stop.max_tokens = 10;
  return request;
}

struct BadRequest {
  const char* field;
  std::function<void(GenerateRequest&)> spoil;
};

class ValidateRequestTest : public ::testing::TestWithParam<BadRequest> {};

TEST_P(ValidateRequestTest, RefusesTheRequestAndNamesTheField) {
  GenerateRequest request = Valid();
  GetParam().spoil(request);
  const absl::Status status = ValidateRequest(request, kLimits);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(GetParam().field));
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

INSTANTIATE_TEST_SUITE_P(
    Fields, ValidateRequestTest,
    ::testing::Values(
        BadRequest{"prompt:", [](auto& r) { r.prompt.clear(); }},
        BadRequest{"prompt:", [](auto& r) { r.prompt.assign(50, 1); }},
        BadRequest{"prompt:", [](auto& r) { r.prompt[1] = 100; }},
        BadRequest{"prompt:", [](auto& r) { r.prompt[1] = -1; }},
        BadRequest{"n:", [](auto& r) { r.n = 0; }}, BadRequest{"n:", [](auto& r) { r.n = 17; }},
        BadRequest{"logprobs:", [](auto& r) { r.logprobs = 21; }},
        BadRequest{"sampling.temperature:", [](auto& r) { r.sampling.temperature = kNan; }},
        BadRequest{"sampling.temperature:", [](auto& r) { r.sampling.temperature = -1; }},
        BadRequest{"sampling.temperature:", [](auto& r) { r.sampling.temperature = INFINITY; }},
        BadRequest{"sampling.top_p:", [](auto& r) { r.sampling.top_p = 0; }},
        BadRequest{"sampling.top_p:", [](auto& r) { r.sampling.top_p = 1.5f; }},
        BadRequest{"sampling.top_k:", [](auto& r) { r.sampling.top_k = -1; }},
        BadRequest{"sampling.min_p:", [](auto& r) { r.sampling.min_p = kNan; }},
        BadRequest{"sampling.typical_p:", [](auto& r) { r.sampling.typical_p = 0; }},
        BadRequest{"sampling.repetition_penalty:",
                   [](auto& r) { r.sampling.repetition_penalty = 0; }},
        BadRequest{"sampling.frequency_penalty:",
                   [](auto& r) { r.sampling.frequency_penalty = 3; }},
        BadRequest{"sampling.presence_penalty:", [](auto& r) { r.sampling.presence_penalty = -3; }},
        BadRequest{"sampling.logit_bias:",
                   [](auto& r) {
                     r.sampling.logit_bias = {{100, 1.0f}};
                   }},
        BadRequest{"sampling.logit_bias:",
                   [](auto& r) {
                     r.sampling.logit_bias = {{1, kNan}};
                   }},
        BadRequest{"stop.max_tokens:", [](auto& r) { r.stop.max_tokens = -1; }},
        BadRequest{"stop.max_tokens:", [](auto& r) { r.stop.max_tokens = 48; }},
        BadRequest{"stop.min_tokens:", [](auto& r) { r.stop.min_tokens = 11; }},
        BadRequest{"stop.min_tokens:", [](auto& r) { r.stop.min_tokens = -1; }},
        BadRequest{"stop.strings:", [](auto& r) { r.stop.strings = {""}; }},
        BadRequest{"stop.strings:", [](auto& r) { r.stop.strings = {std::string(257, 'x')}; }},
        BadRequest{"stop.strings:", [](auto& r) { r.stop.strings.assign(17, "x"); }},
        BadRequest{"stop.token_ids:", [](auto& r) { r.stop.token_ids = {100}; }},
        BadRequest{"stop.token_ids:", [](auto& r) { r.stop.token_ids.assign(65, 1); }}));

TEST(ValidateRequestTest, AcceptsTheLimitsThemselves) {
  GenerateRequest request = Valid();
  request.prompt.assign(49, 99);
  request.stop.max_tokens = 1;
  request.n = 16;
  request.logprobs = 20;
  request.sampling.temperature = 0;
  request.stop.strings.assign(16, std::string(256, 'x'));
  EXPECT_TRUE(ValidateRequest(request, kLimits).ok()) << ValidateRequest(request, kLimits);
}

}  // namespace
}  // namespace asymserve
