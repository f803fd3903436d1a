#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_arena.h"
#include "engine/base/thread_pool.h"

namespace asymserve {

/// Attention over the pages of an arena: deals tiles of rows, and page groups of long sequences, to
/// the threads. Scratch is allocated by Reserve.
class AttentionRunner {
 public:
  AttentionRunner(const Kernels& kernels, ThreadPool& pool, const KvArena& arena)
      : kernels_(kernels), pool_(pool), arena_(arena) {}

  absl::Status Reserve(int64_t max_tokens);
  absl::Status Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                      TensorView out, TensorView qkv);

 private:
  /// Up to kAttentionRows rows (token, query head) of one sequence and one KV head.
  struct Task {
    AttentionTile tile;
    const KvPage* pages;  // the sequence's page table
    int32_t page_count;   // that any of the rows sees
    int32_t kv_head;
  };
  /// What Attend was asked for.
  struct Request {
    const KvStep& step;
    int32_t layer = 0;
    AttentionShape shape;
    TensorView out;
    TensorView qkv;

    int32_t group() const { return shape.heads / shape.kv_heads; }
  };
  struct States {
    float* first;
    float* later;
  };

  absl::Status Check(const KvStep& step, int32_t layer, const AttentionShape& shape, TensorView out,
                     TensorView qkv) const;
  /// Fills tile_offset_; returns how many tiles there are.
  int32_t PlanTiles(const Request& request);
  /// Tile `index` / G for KV head `index` % G.
  Task MakeTask(const Request& request, int32_t index, int thread) const;
  AttentionScratch ThreadScratch(int thread) const;
  States ThreadStates(int thread) const;
  void Scan(const Request& request, const Task& task, int32_t first_page, float* states) const;
  void AttendWhole(const Request& request, const Task& task, int thread) const;
  /// Deals page groups of long sequences to several threads; false when the partial states do not
  /// fit, with nothing done.
  bool AttendSplit(const Request& request, int32_t tasks, int32_t max_pages);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const KvArena& arena_;
  AlignedBuffer scratch_;         // per thread: AttentionScratch, states, later states
  AlignedBuffer partial_states_;  // of long sequences that several threads share
  AlignedBuffer tile_offset_;     // [S + 1] tiles of the sequences before
  int64_t max_tokens_ = 0;
};

}  // namespace asymserve
