#pragma once

#include <cstdint>

#include "engine/backend/token_draw.h"

namespace asymserve::cuda {

/// The largest logit of a row, ties to the lowest id.
struct BestLogit {
  float value = 0;
  int32_t token = 0;  // kNanLogits: one is NaN
};

/// The draws of a step as kernels see them; all in device memory. Element i of an array by draw
/// belongs to draws[i].
struct DrawRows {
  float* logits = nullptr;  // [any][vocabulary]
  int32_t vocabulary = 0;   // at most kMostDrawVocabulary
  const TokenDraw* draws = nullptr;
  int32_t count = 0;
  const LogitEdit* edits = nullptr;
  float* unedited = nullptr;    // by edit: the logit before all edits of its row
  BestLogit* best = nullptr;    // by draw: of the model's logits
  BestLogit* edited = nullptr;  // by draw, if it has edits: with them
  DrawnToken* drawn = nullptr;  // by draw
};

/// So that the masses of draw_tokens.h have sums of 64 bits.
inline constexpr int32_t kMostDrawVocabulary = (1 << 19) - 1;

}  // namespace asymserve::cuda
