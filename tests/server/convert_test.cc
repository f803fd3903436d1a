#include "server/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/status_matchers.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve::testing {
namespace {

using ::testing::ElementsAre;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class ConvertTest : public ::testing::Test {
 protected:
  ConvertTest() {
    auto tokenizer = Tokenizer::Create(ToyTokenizerSpec(kToyLeastVocabulary));
    EXPECT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
    model_.tokenizer = tokenizer_.get();
    model_.limits = {kToyLeastVocabulary, 100};
    proto_.mutable_prompt_token_ids()->add_ids(1);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServedModel model_;
  v1::GenerateRequest proto_;
};

TEST_F(ConvertTest, AbsentFieldsMeanTheDocumentedDefaults) {
  const auto decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  const GenerateRequest& request = decoded->request;
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_EQ(request.sampling.typical_p, 1);
  EXPECT_EQ(request.sampling.repetition_penalty, 1);
  EXPECT_EQ(request.n, 1);
  EXPECT_EQ(request.logprobs, -1);
  EXPECT_FALSE(request.has_seed);
  EXPECT_TRUE(request.skip_special_tokens);
  EXPECT_EQ(request.kv_precision, KvPrecision::kScheme);
  EXPECT_FALSE(decoded->format.tokens);
}

TEST_F(ConvertTest, AnExplicitZeroIsNotADefault) {
  proto_.mutable_sampling()->set_temperature(0);
  proto_.mutable_sampling()->set_seed(0);
  proto_.set_logprobs(0);
  proto_.set_skip_special_tokens(false);
  const auto decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(decoded->request.sampling.temperature, 0);
  EXPECT_TRUE(decoded->request.has_seed);
  EXPECT_EQ(decoded->request.logprobs, 0);
  EXPECT_FALSE(decoded->request.skip_special_tokens);
  EXPECT_TRUE(decoded->format.tokens);

  proto_.set_n(0);
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "n: 0"));
}

TEST_F(ConvertTest, CopiesEveryOption) {
  v1::Sampling& sampling = *proto_.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(7);
  sampling.set_top_p(0.9f);
  sampling.set_min_p(0.1f);
  sampling.set_typical_p(0.8f);
  sampling.set_repetition_penalty(1.1f);
  sampling.set_frequency_penalty(0.2f);
  sampling.set_presence_penalty(-0.3f);
  sampling.set_seed(99);
  (*sampling.mutable_logit_bias())[9] = 1;
  (*sampling.mutable_logit_bias())[2] = -4;
  v1::Stop& stop = *proto_.mutable_stop();
  stop.set_max_tokens(20);
  stop.set_min_tokens(3);
  stop.add_strings("END");
  stop.add_token_ids(5);
  stop.set_include_stop_string(true);
  stop.set_ignore_eos(true);
  proto_.set_n(2);
  proto_.set_priority(-4);
  proto_.set_max_queue_ms(1500);
  proto_.set_return_token_ids(true);
  proto_.set_kv_precision(v1::KV_PRECISION_EXACT);
  const auto decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  const GenerateRequest& request = decoded->request;
  EXPECT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 7);
  EXPECT_EQ(request.sampling.top_p, 0.9f);
  EXPECT_EQ(request.sampling.min_p, 0.1f);
  EXPECT_EQ(request.sampling.typical_p, 0.8f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(request.sampling.frequency_penalty, 0.2f);
  EXPECT_EQ(request.sampling.presence_penalty, -0.3f);
  EXPECT_EQ(request.sampling.seed, 99u);
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(std::pair(2, -4.0f), std::pair(9, 1.0f)));
  EXPECT_EQ(request.stop.max_tokens, 20);
  EXPECT_EQ(request.stop.min_tokens, 3);
  EXPECT_THAT(request.stop.strings, ElementsAre("END"));
  EXPECT_THAT(request.stop.token_ids, ElementsAre(5));
  EXPECT_TRUE(request.stop.include_stop_string);
  EXPECT_TRUE(request.stop.ignore_eos);
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.priority, -4);
  EXPECT_EQ(request.max_queue_ms, 1500);
  EXPECT_EQ(request.kv_precision, KvPrecision::kExact);
  EXPECT_TRUE(decoded->format.tokens);
  EXPECT_FALSE(decoded->format.logprobs);
}

TEST_F(ConvertTest, TruncationKeepsTheEndOfThePrompt) {
  proto_.mutable_prompt_token_ids()->clear_ids();
  for (int id = 0; id < 200; ++id) proto_.mutable_prompt_token_ids()->add_ids(id);
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "prompt_token_ids: has 200 tokens"));
  proto_.set_truncate_prompt_tokens(2);
  const auto decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(decoded->request.prompt, ElementsAre(198, 199));
  proto_.set_truncate_prompt_tokens(0);
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "truncate_prompt_tokens: 0"));
}

TEST_F(ConvertTest, APromptIsRequiredAndNotEmpty) {
  EXPECT_THAT(FromProto(v1::GenerateRequest(), model_), FailsWith(kInvalid, "prompt: is missing"));
  proto_.set_prompt("");
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "prompt: is empty"));
  proto_.mutable_prompt_token_ids();
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "prompt_token_ids: is empty"));
}

TEST_F(ConvertTest, ControlTokensInAPromptAreTextUnlessAskedFor) {
  proto_.set_prompt("<|im_end|>");
  auto decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  EXPECT_GT(decoded->request.prompt.size(), 1u);
  proto_.set_parse_special_tokens(true);
  decoded = FromProto(proto_, model_);
  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(decoded->request.prompt, ElementsAre(kToyTurnEnd));
}

TEST_F(ConvertTest, NumbersThatAreNoneAreRefusedByName) {
  proto_.mutable_sampling()->set_temperature(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "sampling.temperature"));
  proto_.mutable_sampling()->set_temperature(1);
  proto_.set_logprobs(-1);
  EXPECT_THAT(FromProto(proto_, model_), FailsWith(kInvalid, "logprobs: -1"));
}

TEST_F(ConvertTest, AChatMessageNeedsARoleAndMayAskForExactKv) {
  const auto chat = ChatTemplate::Parse(tokenizer_->spec().chat_template);
  ASSERT_THAT(chat, IsOk());
  model_.chat_template = &*chat;
  v1::ChatRequest proto;
  EXPECT_THAT(FromProto(proto, model_), FailsWith(kInvalid, "messages: is empty"));
  proto.add_messages()->set_role("user");
  EXPECT_THAT(FromProto(proto, model_), IsOk());
  proto.set_kv_precision(v1::KV_PRECISION_EXACT);
  const auto exact = FromProto(proto, model_);
  ASSERT_THAT(exact, IsOk());
  EXPECT_EQ(exact->request.kv_precision, KvPrecision::kExact);
  proto.set_kv_precision(static_cast<v1::KvPrecision>(-2));
  EXPECT_THAT(FromProto(proto, model_), FailsWith(kInvalid, "kv_precision: -2"));
  proto.clear_kv_precision();
  proto.mutable_messages(0)->set_content(std::string(1000, 'q'));
  EXPECT_THAT(FromProto(proto, model_), FailsWith(kInvalid, "messages: has "));
  proto.add_messages()->set_content("hi");
  EXPECT_THAT(FromProto(proto, model_), FailsWith(kInvalid, "messages[1].role: is empty"));
}

TEST_F(ConvertTest, JoinedDeltasAreTheConcatenation) {
  Delta first;
  first.index = 2;
  first.text = "ab";
  first.tokens = {{.id = 'a', .logprob = -1, .top = {}}};
  Delta last;
  last.index = 2;
  last.text = "c";
  last.finish = FinishReason::kStopString;
  last.stop_index = 1;
  last.generated_tokens = 3;
  const OutputFormat format{.tokens = true, .logprobs = false, .stop_strings = {"x", "y"}};
  v1::GenerateResponse message;
  AppendDelta(first, format, *tokenizer_, message);
  EXPECT_FALSE(message.has_final());
  AppendDelta(last, format, *tokenizer_, message);
  EXPECT_EQ(message.index(), 2);
  EXPECT_EQ(message.text(), "abc");
  ASSERT_EQ(message.tokens_size(), 1);
  EXPECT_FALSE(message.tokens(0).has_logprob());
  EXPECT_EQ(message.final().stop_string(), "y");
  EXPECT_EQ(message.final().usage().generated_tokens(), 3);
  EXPECT_FALSE(message.final().has_stop_token_id());
  EXPECT_FALSE(message.final().has_degraded_from_token());
}

TEST_F(ConvertTest, TheFinalMessageTellsFromWhichTokenASequenceIsDegraded) {
  Delta last;
  last.finish = FinishReason::kLength;
  last.degraded_from = 0;
  v1::GenerateResponse message;
  AppendDelta(last, {}, *tokenizer_, message);
  ASSERT_TRUE(message.final().has_degraded_from_token());
  EXPECT_EQ(message.final().degraded_from_token(), 0);
}

}  // namespace
}  // namespace asymserve::testing
