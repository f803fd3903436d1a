#pragma once

#include <cstdint>
#include <span>

// What a backend is told to choose tokens itself, and what it answers. The choice is that of
// model/sampler.h, which says what the parameters mean and in which order they count. Included by
// device code: no other header of ours.

namespace asymserve {

/// A token this much less likely than the most likely one (in nats) is never drawn when a filter is
/// on: 50,000 of them together have less than 1e-8 of its probability.
inline constexpr float kNegligibleNats = -30;

/// In the order in which they count.
enum class EditKind : int32_t {
  kBias,   // value is added
  kSeen,   // repetition penalty
  kCount,  // frequency penalty for `value` occurrences, and presence penalty
  kBan,    // never drawn
};
inline constexpr int32_t kEditKinds = 4;

/// A change of a logit. But for kBan, a token has one of each kind at most.
struct LogitEdit {
  int32_t token = 0;
  EditKind kind = EditKind::kBan;
  float value = 0;
};

/// How the token of one row of logits is chosen.
struct TokenDraw {
  int32_t row = 0;
  int32_t first_edit = 0;  // of DrawBatch::edits
  int32_t edit_count = 0;
  int32_t top_k = 0;              // 0: all
  float inverse_temperature = 0;  // 0: the most likely token, ties to the lowest id
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  double uniform = 0;  // the random number, in [0, 1)
  bool logprob = false;

  /// Whether a part of the tokens may be left out.
  constexpr bool filters() const { return top_k > 0 || top_p < 1 || min_p > 0; }
};

struct DrawBatch {
  std::span<const TokenDraw> draws;  // of ascending rows, and of some of them only
  std::span<const LogitEdit> edits;  // of all draws, one after the other
};

/// Instead of a token: a logit is NaN, as the model gave it.
inline constexpr int32_t kNanLogits = -1;
/// All logits are -infinity with the edits, or one is NaN or infinity.
inline constexpr int32_t kNothingToDraw = -2;

struct DrawnToken {
  int32_t token = kNothingToDraw;
  // If a log-probability is wanted, of the logits without edits: the token's, the largest one, and
  // the sum of exp(logit - largest).
  float logit = 0;
  float largest = 0;
  double sum = 0;
};

/// What a backend takes.
struct DrawLimits {
  int32_t edits = 0;  // of a draw
};

}  // namespace asymserve
