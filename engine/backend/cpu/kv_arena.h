#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/base/thread_pool.h"
#include "engine/kv/layout.h"

namespace asymserve {

/// The bytes of the page records, the writing of them, and attention over them. Scratch is
/// allocated by Init and Reserve.
class KvArena {
 public:
  KvArena(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  /// Once. InvalidArgument for shapes that the kernels cannot do, ResourceExhausted for memory.
  absl::Status Init(const KvShape& shape, const KvScheme& scheme, int32_t pages);
  absl::Status Reserve(int64_t max_tokens);

  absl::Status Write(const KvStep& step, int32_t layer, TensorView qkv);
  absl::Status Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                      TensorView out, TensorView qkv);

 private:
  /// Up to kAttentionRows rows (token, query head) of one sequence and one KV head.
  struct Task {
    AttentionTile tile;
    int32_t pages;  // that any of the rows sees
  };
  /// What Attend was asked for.
  struct Request {
    const KvStep& step;
    int32_t layer;
    AttentionShape shape;
    TensorView out;
    TensorView qkv;

    int32_t group() const { return shape.heads / shape.kv_heads; }
  };
  struct Scratch {
    float* queries;
    float* weights;
    float* states;
    float* later;
  };

  absl::Status CheckStep(const KvStep& step, int32_t layer, TensorView qkv) const;
  void WriteToken(const KvStep& step, int32_t layer, int32_t sequence, int64_t token,
                  const float* keys, uint16_t* half) const;
  /// Fills tile_offset_; returns how many tiles there are.
  int32_t PlanTiles(const Request& request);
  /// Tile `index` / G for KV head `index` % G.
  Task MakeTask(const Request& request, int32_t index, int thread) const;
  Scratch ThreadScratch(int thread) const;
  void AttendWhole(const Task& task, int thread) const;
  /// Deals page groups of long sequences to several threads; false when the partial states do not
  /// fit, with nothing done.
  bool AttendSplit(const Request& request, int32_t tasks, int32_t max_pages);

  const Kernels& kernels_;
  ThreadPool& pool_;
  KvShape shape_;
  KvScheme scheme_;
  int32_t pages_ = 0;
  AlignedBuffer arena_;
  AlignedBuffer scratch_;         // per thread: queries, weights, states, later states
  AlignedBuffer partial_states_;  // of long sequences that several threads share
  AlignedBuffer tile_offset_;     // [S + 1] tiles of the sequences before
  int64_t max_tokens_ = 0;
};

}  // namespace asymserve
