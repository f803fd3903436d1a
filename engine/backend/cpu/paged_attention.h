#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/cpu_memory.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_arena.h"
#include "engine/base/thread_pool.h"

namespace asymserve {

/// Attention over the pages of an arena: deals tiles of rows, and page groups of long sequences, to
/// the threads. Scratch is allocated by Reserve.
class AttentionRunner {
 public:
  /// `memory` outlives the runner.
  AttentionRunner(const Kernels& kernels, ThreadPool& pool, const KvArena& arena,
                  const CpuMemory& memory)
      : kernels_(kernels), pool_(pool), arena_(arena), memory_(memory) {}

  absl::Status Reserve(int64_t max_tokens);
  /// The buffers that Reserve allocates.
  static std::array<int64_t, 3> ScratchBytes(int64_t max_tokens, int threads);
  absl::Status Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                      TensorView out, TensorView qkv);

 private:
  /// Up to kAttentionRows rows (token, query head) of one sequence: the same rows for one or more
  /// KV heads, which take turns in every group of pages, so that a page's bytes are read in their
  /// order.
  struct Task {
    std::array<AttentionTile, kAttentionRows> tiles;  // one a KV head
    int32_t heads;
    int32_t first_head;
    const KvPage* pages;  // the sequence's page table
    int32_t page_count;   // that any of the rows sees
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
  /// How the work of a step is dealt out.
  struct Deal {
    int32_t tiles;           // of rows
    int32_t heads_per_task;  // KV heads
    int32_t tasks_per_tile;

    int32_t tasks() const { return tiles * tasks_per_tile; }
  };
  struct States {
    float* first;
    float* later;
  };

  absl::Status Check(const KvStep& step, int32_t layer, const AttentionShape& shape, TensorView out,
                     TensorView qkv) const;
  /// Fills tile_offset_.
  void PlanTiles(const Request& request);
  /// As many heads a task as rows fit its scratch, but `chunks` chunks of work if there are.
  Deal DealOut(const Request& request, int32_t rows, int32_t groups, int32_t chunks) const;
  Task MakeTask(const Request& request, const Deal& deal, int32_t index, int thread) const;
  AttentionTile MakeTile(const Request& request, int32_t sequence, int32_t first_row,
                         int32_t kv_head, const AttentionScratch& scratch) const;
  /// Scratch for rows from `first_row` of the thread's on.
  AttentionScratch ThreadScratch(int thread, int32_t first_row) const;
  States ThreadStates(int thread) const;
  /// states: [heads][kRows of the task][floats], by head.
  void Scan(const Request& request, const Task& task, int32_t first_page, float* states) const;
  void Merge(const Task& task, int32_t first_page, float* states, const float* later) const;
  void Finish(const Task& task, float* states) const;
  void Load(const Task& task) const;
  void AttendWhole(const Request& request, const Task& task, int thread) const;
  /// Deals page groups of long sequences to several threads; false when the partial states do not
  /// fit, with nothing done.
  bool AttendSplit(const Request& request, const Deal& deal, int32_t groups);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const KvArena& arena_;
  const CpuMemory& memory_;
  AlignedBuffer scratch_;         // per thread: AttentionScratch, states, later states
  AlignedBuffer partial_states_;  // of long sequences that several threads share
  AlignedBuffer tile_offset_;     // [S + 1] tiles of the sequences before
  int64_t max_tokens_ = 0;
};

}  // namespace asymserve
