#include "bench/sched/step_cost.h"

#include <algorithm>
#include <cmath>

namespace asymserve {

StepCost::StepCost(const Machine& machine, const SchemeSpeed& speed, const KvScheme& scheme)
    : machine_(machine), speed_(speed), scheme_(scheme) {
  const KvLayout layout(machine.shape, scheme);
  near_bytes_ = static_cast<double>(layout.record_bytes(KvRecord::kNear));
  const auto base = static_cast<double>(layout.record_bytes(KvRecord::kBase));
  const auto refinement = static_cast<double>(layout.record_bytes(KvRecord::kRefinement));
  const int32_t pages = PagesFor(machine.context_tokens, scheme.page_tokens);
  for (int32_t complete = 0; complete <= pages; ++complete) {
    double bytes = 0;
    for (int32_t page = 0; page < complete; ++page) {
      // Keys and values count half each: one may still be near when the other is sealed.
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        const KvTier tier = TierOf(scheme, tensor, page, complete);
        bytes += (tier == KvTier::kNear ? near_bytes_ : base) / 2;
        bytes += tier == KvTier::kFresh ? refinement / 2 : 0;
      }
    }
    complete_bytes_.push_back(bytes);
  }
}

double StepCost::CompleteBytes(int32_t complete) const {
  return complete_bytes_[std::min(static_cast<size_t>(complete), complete_bytes_.size() - 1)];
}

double StepCost::ReadBytes(int32_t tokens, int32_t complete) const {
  const double open = static_cast<double>(tokens) / scheme_.page_tokens - complete;
  return CompleteBytes(complete) + open * near_bytes_;
}

TimeUs StepCost::Of(const StepPlan& plan) const {
  double tokens_us = 0, bytes = 0, attention_us = 0;
  for (const StepItem& item : plan.items) {
    const int32_t end = item.begin + item.count;
    const double contexts = (item.begin + 1.0 + end) / 2 * item.count;  // sum over the item's rows
    if (item.role == StepItem::Role::kDecode) {
      tokens_us += item.count * (machine_.decode_row_us + speed_.decode_row_us);
      attention_us += contexts * speed_.row_context_us;
      bytes += ReadBytes(end, item.begin / scheme_.page_tokens);
    } else {
      const int32_t chunk = item.begin / scheme_.chunk_tokens * scheme_.chunk_tokens;
      tokens_us += item.count * machine_.prefill_token_us;
      attention_us += contexts * (machine_.prefill_context_us + speed_.prefill_context_us);
      bytes += ReadBytes(end, chunk / scheme_.page_tokens);
    }
  }
  double seals = 0;
  for (const KvSealOp& op : plan.seals) seals += (op.keys ? 0.5 : 0) + (op.values ? 0.5 : 0);
  const double step_us =
      machine_.fixed_us + speed_.fixed_us + std::max(machine_.weights_us, tokens_us) +
      bytes * speed_.read_factor / machine_.kv_bytes_per_us + attention_us + seals * speed_.seal_us;
  return std::max<TimeUs>(1, std::llround(step_us));
}

}  // namespace asymserve
