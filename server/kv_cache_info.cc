#include "server/kv_cache_info.h"

#include <algorithm>

#include "engine/base/log.h"
#include "engine/kv/layout.h"

namespace asymserve {
namespace {

constexpr int32_t kSequenceTokens = 4096;

/// What is not known is a word, so that the keys are always there.
LogField Loss(std::string_view key, const std::optional<double>& loss) {
  return loss.has_value() ? LogField(key, *loss) : LogField(key, "unknown");
}

}  // namespace

KvCacheInfo DescribeKvCache(const LoadedModel& loaded, const KvQualityLimits& limits) {
  const EngineOptions& engine = loaded.engine_options;
  const AttentionShape& attention = loaded.config.attention;
  const KvShape shape{loaded.config.layers, attention.kv_heads, attention.head_size};
  const KvLayout layout(shape, engine.scheme);
  KvCacheInfo kv;
  kv.scheme = engine.scheme.name;
  kv.tier = loaded.kv_tier;
  kv.sealed_bits = layout.sealed_bits();
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const auto t = static_cast<size_t>(tensor);
    kv.sealed_tensor_bits[t] = layout.sealed_bits(tensor);
    for (const KvRecord record : {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement}) {
      kv.record_bytes[static_cast<size_t>(record)][t] = layout.tensor_bytes(record, tensor);
    }
  }
  kv.effective_bits = layout.EffectiveBits(engine.max_context_tokens);
  kv.losses = loaded.kv_losses;
  if (const std::optional<KvWorstLoss> worst = WorstLoss(loaded.kv_losses); worst.has_value()) {
    kv.mean_kl = worst->mean_kl;
    kv.copy_loss = worst->copy_loss;
  } else if (kv.scheme == KvScheme().name) {
    kv.mean_kl = 0;
  }
  kv.self_check_kl = loaded.kv_self_check_kl;
  kv.limits = limits;
  kv.sequence_tokens = std::min(kSequenceTokens, engine.max_context_tokens);
  const KvLoad load = {.prompt_tokens = kv.sequence_tokens, .step_tokens = engine.step_tokens};
  kv.capacity = CapacityOf(shape, engine.scheme, loaded.kv_bytes, load);
  kv.exact_capacity = CapacityOf(shape, KvScheme(), loaded.kv_bytes, load);
  return kv;
}

void LogKvCache(const KvCacheInfo& kv) {
  for (const KvLoss& loss : kv.losses) {
    Log(LogLevel::kInfo, "kv_quality",
        {{"scheme", kv.scheme},
         {"text", loss.text},
         {"mean_kl", loss.mean_kl},
         {"copy_loss", loss.copy_loss}});
  }
  if (!kv.mean_kl.has_value() && !kv.self_check_kl.has_value()) {
    Log(LogLevel::kWarn, "kv_quality",
        {{"scheme", kv.scheme},
         {"hint",
          "nobody measured what this scheme costs on this model: asymserve quality does, "
          "kv.quality.self_check at start"}});
  }
  if (kv.unfit_for_long_range()) {
    Log(LogLevel::kWarn, "kv_quality",
        {{"scheme", kv.scheme},
         {"copy_loss", *kv.copy_loss},
         {"hint", "unfit for long-range reading"}});
  }
  Log(LogLevel::kInfo, "kv_cache",
      {{"scheme", kv.scheme},
       {"tier", kv.tier.empty() ? "none" : kv.tier},
       {"sealed_bits", kv.sealed_bits},
       {"effective_bits", kv.effective_bits},
       Loss("mean_kl", kv.mean_kl),
       {"max_mean_kl", kv.limits.max_mean_kl},
       Loss("copy_loss", kv.copy_loss),
       {"max_copy_loss", kv.limits.max_copy_loss},
       Loss("self_check_kl", kv.self_check_kl),
       {"tokens", kv.capacity.tokens},
       {"exact_tokens", kv.exact_capacity.tokens},
       {"sequence_tokens", kv.sequence_tokens},
       {"sequences", kv.capacity.sequences},
       {"exact_sequences", kv.exact_capacity.sequences}});
}

}  // namespace asymserve
