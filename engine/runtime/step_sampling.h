#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/model/model.h"
#include "engine/model/sampler.h"
#include "engine/runtime/draw_list.h"
#include "engine/runtime/generation.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

/// So many threads sample at once, for each has scratch of its own: see SamplerBytes.
inline constexpr int32_t kMaxSamplers = 16;
/// A bound of what each of them holds: three floats a token, and 24 bytes for each that is drawn
/// from.
constexpr int64_t SamplerBytes(int32_t vocabulary) {
  return int64_t{40} * vocabulary;
}

/// The next tokens of a step's sequences. The backend draws those that it can; the others are
/// sampled on the host, by the threads that the model leaves idle between its steps. Who samples a
/// token does not change it. Engine thread.
class StepSampling {
 public:
  /// Both outlive it.
  StepSampling(Model& model, const Tokenizer& tokenizer);

  /// Begins a step.
  void Clear();
  /// The next row of the step's logits is for the next token of this sequence, which stays as it is
  /// until Sample.
  void Add(const Generation& generation);
  /// What the step's batch has drawn, and where to. Valid until the next change.
  DrawBatch draws() const { return draws_.batch(); }
  std::span<DrawnToken> drawn() { return draws_.drawn(); }

  /// After the step: chooses the tokens of the rows that were not drawn.
  void Sample(const TensorView& logits);
  /// The token of a row, after Sample. An error is its sequence's alone.
  const absl::StatusOr<SampledToken>& token(size_t row) const { return tokens_[row]; }

 private:
  struct HostSampler {
    explicit HostSampler(int32_t vocabulary) : sampler(vocabulary) {}
    Sampler sampler;
    std::vector<int32_t> banned;  // of the token that it samples
  };

  /// How the next token of a sequence is sampled, but for the logits. Valid as long as `banned`.
  SampleRequest NextDraw(const Generation& generation, std::vector<int32_t>* banned) const;
  void SampleRow(const TensorView& logits, size_t row, HostSampler& sampler);

  const int32_t vocabulary_;
  ThreadPool* const threads_;  // null: only the engine's
  std::vector<int32_t> end_tokens_;
  DrawList draws_;
  std::vector<HostSampler> samplers_;
  // By row of the step.
  std::vector<const Generation*> sequences_;
  std::vector<absl::StatusOr<SampledToken>> tokens_;
  std::vector<size_t> host_rows_;
};

}  // namespace asymserve
