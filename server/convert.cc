#include "server/convert.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "server/version.h"

namespace asymserve {
namespace {

/// What a chat template's strftime_now() shows: the server's clock in its own time zone.
std::tm LocalTime() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

SamplingParams ToSampling(const v1::Sampling& proto) {
  SamplingParams params;
  if (proto.has_temperature()) params.temperature = proto.temperature();
  params.top_k = proto.top_k();
  if (proto.has_top_p()) params.top_p = proto.top_p();
  params.min_p = proto.min_p();
  if (proto.has_typical_p()) params.typical_p = proto.typical_p();
  if (proto.has_repetition_penalty()) params.repetition_penalty = proto.repetition_penalty();
  params.frequency_penalty = proto.frequency_penalty();
  params.presence_penalty = proto.presence_penalty();
  params.logit_bias.assign(proto.logit_bias().begin(), proto.logit_bias().end());
  std::sort(params.logit_bias.begin(), params.logit_bias.end());  // a map's order is arbitrary
  params.seed = proto.seed();
  return params;
}

StopParams ToStop(const v1::Stop& proto) {
  StopParams stop;
  stop.max_tokens = proto.max_tokens();
  stop.min_tokens = proto.min_tokens();
  stop.strings.assign(proto.strings().begin(), proto.strings().end());
  stop.token_ids.assign(proto.token_ids().begin(), proto.token_ids().end());
  stop.include_stop_string = proto.include_stop_string();
  stop.ignore_eos = proto.ignore_eos();
  return stop;
}

absl::StatusOr<KvPrecision> ToKvPrecision(v1::KvPrecision precision) {
  switch (precision) {
    case v1::KV_PRECISION_UNSPECIFIED:
      return KvPrecision::kScheme;
    case v1::KV_PRECISION_EXACT:
      return KvPrecision::kExact;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("kv_precision: ", static_cast<int>(precision),
                       " is unknown; 0 is the server's scheme, 1 is EXACT"));
  }
}

/// The fields that GenerateRequest and ChatRequest share. The prompt came from `prompt_field`.
template <typename Proto>
absl::StatusOr<DecodedRequest> FromCommonFields(const Proto& proto, std::vector<int32_t> prompt,
                                                std::string_view prompt_field,
                                                const RequestLimits& limits) {
  DecodedRequest decoded;
  GenerateRequest& request = decoded.request;
  if (proto.has_truncate_prompt_tokens()) {
    const int64_t keep = proto.truncate_prompt_tokens();
    if (keep < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("truncate_prompt_tokens: ", keep, " is not at least 1"));
    }
    if (keep < static_cast<int64_t>(prompt.size()))
      prompt.erase(prompt.begin(), prompt.end() - keep);
  }
  if (proto.has_logprobs() && proto.logprobs() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("logprobs: ", proto.logprobs(), " is negative"));
  }
  request.prompt = std::move(prompt);
  if (proto.has_n()) request.n = proto.n();
  request.sampling = ToSampling(proto.sampling());
  request.has_seed = proto.sampling().has_seed();
  request.stop = ToStop(proto.stop());
  if (proto.has_logprobs()) request.logprobs = proto.logprobs();
  if (proto.has_skip_special_tokens()) request.skip_special_tokens = proto.skip_special_tokens();
  request.priority = proto.priority();
  if (proto.has_max_queue_ms()) request.max_queue_ms = proto.max_queue_ms();
  ASYMSERVE_ASSIGN_OR_RETURN(request.kv_precision, ToKvPrecision(proto.kv_precision()));
  decoded.format.logprobs = request.logprobs >= 0;
  decoded.format.tokens = proto.return_token_ids() || decoded.format.logprobs;
  decoded.format.stop_strings = request.stop.strings;
  ASYMSERVE_RETURN_IF_ERROR(ValidateRequest(request, limits, prompt_field));
  return decoded;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kEos:
      return v1::FINISH_REASON_EOS;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
    case FinishReason::kQueueTimeout:
      return v1::FINISH_REASON_QUEUE_TIMEOUT;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillFinal(const Delta& delta, const OutputFormat& format, v1::Final& final) {
  final.set_reason(ToProto(delta.finish));
  if (delta.finish == FinishReason::kStopString && delta.stop_index >= 0 &&
      delta.stop_index < static_cast<int>(format.stop_strings.size())) {
    final.set_stop_string(format.stop_strings[delta.stop_index]);
  }
  if (delta.stop_token >= 0) final.set_stop_token_id(delta.stop_token);
  if (delta.degraded_from >= 0) final.set_degraded_from_token(delta.degraded_from);
  v1::Usage& usage = *final.mutable_usage();
  usage.set_prompt_tokens(delta.prompt_tokens);
  usage.set_cached_tokens(delta.cached_tokens);
  usage.set_generated_tokens(delta.generated_tokens);
  v1::Timings& timings = *final.mutable_timings();
  timings.set_queue_seconds(delta.timings.queue);
  timings.set_prefill_seconds(delta.timings.prefill);
  timings.set_first_token_seconds(delta.timings.first_token);
  timings.set_total_seconds(delta.timings.total);
}

void FillKvCacheInfo(const KvCacheInfo& kv, v1::GetModelInfoResponse& info) {
  info.set_kv_scheme(kv.scheme);
  info.set_kv_tier(kv.tier);
  info.set_kv_sealed_bits(kv.sealed_bits);
  info.set_kv_effective_bits(kv.effective_bits);
  if (kv.mean_kl.has_value()) info.set_kv_mean_kl(*kv.mean_kl);
  if (kv.copy_loss.has_value()) info.set_kv_copy_loss(*kv.copy_loss);
  info.set_kv_max_mean_kl(kv.limits.max_mean_kl);
  info.set_kv_max_copy_loss(kv.limits.max_copy_loss);
  if (kv.self_check_kl.has_value()) info.set_kv_self_check_kl(*kv.self_check_kl);
  info.set_kv_unfit_for_long_range(kv.unfit_for_long_range());
  info.set_kv_cache_tokens(kv.capacity.tokens);
  info.set_kv_cache_tokens_exact(kv.exact_capacity.tokens);
  info.set_kv_sequence_tokens(kv.sequence_tokens);
  info.set_kv_sequences(kv.capacity.sequences);
  info.set_kv_sequences_exact(kv.exact_capacity.sequences);
}

}  // namespace

absl::StatusOr<DecodedRequest> FromProto(const v1::GenerateRequest& proto,
                                         const ServedModel& model) {
  switch (proto.input_case()) {
    case v1::GenerateRequest::kPromptTokenIds: {
      const auto& ids = proto.prompt_token_ids().ids();
      return FromCommonFields(proto, {ids.begin(), ids.end()}, "prompt_token_ids", model.limits);
    }
    case v1::GenerateRequest::kPrompt: {
      if (proto.prompt().empty()) return absl::InvalidArgumentError("prompt: is empty");
      EncodeOptions options;
      if (proto.has_add_special_tokens()) options.add_special = proto.add_special_tokens();
      options.parse_special = proto.parse_special_tokens();
      absl::StatusOr<std::vector<int32_t>> ids = model.tokenizer->Encode(proto.prompt(), options);
      if (!ids.ok()) return Annotate(ids.status(), "prompt");
      return FromCommonFields(proto, *std::move(ids), "prompt", model.limits);
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("prompt: is missing, as is prompt_token_ids; one is required");
}

absl::StatusOr<DecodedRequest> FromProto(const v1::ChatRequest& proto, const ServedModel& model) {
  if (model.chat_template == nullptr) return model.chat_template_error;
  if (proto.messages().empty()) return absl::InvalidArgumentError("messages: is empty");
  std::vector<ChatMessage> messages;
  messages.reserve(proto.messages_size());
  for (const v1::ChatMessage& message : proto.messages()) {
    if (message.role().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", messages.size(), "].role: is empty"));
    }
    messages.push_back({message.role(), message.content()});
  }
  const TokenizerSpec& spec = model.tokenizer->spec();
  const auto token_text = [&](int32_t id) {
    return id < 0 ? std::string() : std::string(model.tokenizer->TokenBytes(id));
  };
  ChatTemplateOptions options;
  options.bos_token = token_text(spec.bos);
  options.eos_token = token_text(spec.eos);
  options.local_time = LocalTime();
  if (proto.has_add_generation_prompt()) {
    options.add_generation_prompt = proto.add_generation_prompt();
  }
  const absl::StatusOr<std::string> text = model.chat_template->Render(messages, options);
  if (!text.ok()) return Annotate(text.status(), "messages");
  EncodeOptions encode;
  encode.parse_special = true;
  // A template that writes the begin-of-text token itself must not get a second one.
  encode.add_special = options.bos_token.empty() || text->rfind(options.bos_token, 0) != 0;
  absl::StatusOr<std::vector<int32_t>> ids = model.tokenizer->Encode(*text, encode);
  if (!ids.ok()) return Annotate(ids.status(), "messages");
  return FromCommonFields(proto, *std::move(ids), "messages", model.limits);
}

void AppendDelta(const Delta& delta, const OutputFormat& format, const Tokenizer& tokenizer,
                 v1::GenerateResponse& message) {
  message.set_index(delta.index);
  message.mutable_text()->append(delta.text);
  if (format.tokens) {
    for (const TokenInfo& info : delta.tokens) {
      v1::Token& token = *message.add_tokens();
      token.set_id(info.id);
      if (!format.logprobs) continue;
      token.set_logprob(info.logprob);
      for (const TokenLogProb& top : info.top) {
        v1::TokenLogProb& entry = *token.add_top_logprobs();
        entry.set_id(top.token);
        entry.set_logprob(top.logprob);
        entry.set_bytes(std::string(tokenizer.TokenBytes(top.token)));
      }
    }
  }
  if (delta.finish != FinishReason::kNone) FillFinal(delta, format, *message.mutable_final());
}

void FillModelInfo(const ServedModel& model, v1::GetModelInfoResponse& info) {
  const TokenizerSpec& spec = model.tokenizer->spec();
  info.set_name(model.name);
  info.set_architecture(model.architecture);
  info.set_vocabulary_size(model.limits.vocabulary);
  info.set_context_tokens(model.limits.max_context_tokens);
  info.set_layers(model.layers);
  info.set_weight_type(model.weight_type);
  info.set_weight_bytes(model.weight_bytes);
  info.set_has_chat_template(model.chat_template != nullptr);
  if (spec.eos >= 0) info.add_end_token_ids(spec.eos);
  for (const int32_t id : spec.end_ids) {
    if (id != spec.eos) info.add_end_token_ids(id);
  }
  if (spec.bos >= 0) info.set_bos_token_id(spec.bos);
  FillKvCacheInfo(model.kv, info);
  info.set_max_running(model.max_running);
  info.set_server_version(std::string(kVersion));
  info.set_device(model.device);
}

}  // namespace asymserve
