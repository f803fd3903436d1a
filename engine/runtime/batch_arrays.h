#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/model.h"

namespace asymserve {

/// The arrays of a Batch while it is put together; their memory is used from step to step.
class BatchArrays {
 public:
  void Clear();
  /// A sequence's `tokens`, the first of them at position `begin`; the logits of the last `rows` of
  /// them are wanted.
  void Add(std::span<const int32_t> tokens, int32_t begin, std::span<const KvPage> pages,
           int32_t rows);
  void AddSeals(std::span<const KvSealOp> seals) {
    seals_.insert(seals_.end(), seals.begin(), seals.end());
  }
  /// Valid until the next change.
  Batch batch() const {
    return {tokens_, {positions_, token_offset_, pages_, page_offset_}, logit_rows_, seals_};
  }

 private:
  std::vector<int32_t> tokens_, positions_, token_offset_, page_offset_, logit_rows_;
  std::vector<KvPage> pages_;
  std::vector<KvSealOp> seals_;
};

}  // namespace asymserve
