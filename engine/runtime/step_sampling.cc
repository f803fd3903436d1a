#include "engine/runtime/step_sampling.h"

#include <algorithm>
#include <atomic>

#include "engine/base/thread_pool.h"
#include "engine/model/device_draw.h"

namespace asymserve {

StepSampling::StepSampling(Model& model, const Tokenizer& tokenizer)
    : vocabulary_(model.vocabulary()), threads_(model.threads()), draws_(model.draw_limits()) {
  for (int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    if (tokenizer.IsEnd(id)) end_tokens_.push_back(id);
  }
  const int32_t samplers = threads_ == nullptr ? 1 : std::min(threads_->threads(), kMaxSamplers);
  for (int32_t i = 0; i < samplers; ++i) samplers_.emplace_back(vocabulary_);
}

void StepSampling::Clear() {
  draws_.Clear();
  sequences_.clear();
}

void StepSampling::Add(const Generation& generation) {
  const auto row = static_cast<int32_t>(sequences_.size());
  sequences_.push_back(&generation);
  if (!draws_.enabled() || !generation.draws_on_device) return;
  draws_.Add(NextDraw(generation, &samplers_.front().banned), row);
}

SampleRequest StepSampling::NextDraw(const Generation& generation,
                                     std::vector<int32_t>* banned) const {
  const GenerateRequest& request = generation.request->request;
  banned->clear();
  if (generation.generated() < request.stop.min_tokens) {
    if (!request.stop.ignore_eos) *banned = end_tokens_;
    banned->insert(banned->end(), request.stop.token_ids.begin(), request.stop.token_ids.end());
  }
  SampleRequest draw;
  draw.params = &generation.sampling;
  draw.history = &generation.history;
  draw.banned = *banned;
  draw.position = static_cast<uint64_t>(generation.generated());
  draw.logprobs = request.logprobs;
  return draw;
}

void StepSampling::Sample(const TensorView& logits) {
  tokens_.resize(sequences_.size());
  host_rows_.clear();
  for (size_t row = 0; row < sequences_.size(); ++row) {
    if (const DrawnToken* drawn = draws_.Find(static_cast<int32_t>(row))) {
      tokens_[row] = ToSampled(*drawn, sequences_[row]->request->request.logprobs >= 0);
    } else {
      host_rows_.push_back(row);
    }
  }
  // Rows take unequal times, greedy ones the least: whoever is free takes the next.
  std::atomic<size_t> next{0};
  const auto sample_rows = [&](int sampler, int /*thread*/) {
    for (size_t i = next++; i < host_rows_.size(); i = next++) {
      SampleRow(logits, host_rows_[i], samplers_[static_cast<size_t>(sampler)]);
    }
  };
  if (threads_ == nullptr) {
    sample_rows(0, 0);
  } else {
    const size_t samplers = std::min(samplers_.size(), host_rows_.size());
    threads_->ParallelFor(static_cast<int>(samplers), sample_rows);
  }
}

void StepSampling::SampleRow(const TensorView& logits, size_t row, HostSampler& sampler) {
  SampleRequest draw = NextDraw(*sequences_[row], &sampler.banned);
  draw.logits = {logits.Row<float>(static_cast<int64_t>(row)), static_cast<size_t>(vocabulary_)};
  tokens_[row] = sampler.sampler.Sample(draw);
}

}  // namespace asymserve
