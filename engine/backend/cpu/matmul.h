#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/cpu_memory.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/packed_weight.h"
#include "engine/base/thread_pool.h"

namespace asymserve {

/// Products of activations and packed weights over a thread pool: quantizes the rows once, then
/// deals out rectangles of panels and rows.
class MatMulRunner {
 public:
  /// `memory` outlives the runner.
  MatMulRunner(const Kernels& kernels, ThreadPool& pool, const CpuMemory& memory)
      : kernels_(kernels), pool_(pool), memory_(memory) {}

  /// Scratch for up to `max_rows` rows of up to `max_inputs`.
  absl::Status Reserve(int64_t max_rows, int64_t max_inputs);
  static int64_t ScratchBytes(int64_t max_rows, int64_t max_inputs);
  int64_t max_rows() const { return max_rows_; }
  int64_t max_inputs() const { return max_inputs_; }

  /// out [rows, w.rows()] = x [rows, w.cols()] times w transposed; within what is reserved.
  void Run(float* out, const float* x, int64_t rows, const PackedWeight& w);

 private:
  void Quantize(const float* x, int64_t rows, int64_t inputs);
  void RunSegment(float* out, const float* x, int64_t rows, const PackedWeight& w,
                  const PackedWeight::Segment& segment);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CpuMemory& memory_;
  int64_t max_rows_ = 0;
  int64_t max_inputs_ = 0;
  AlignedBuffer activations_;  // row tiles of blocks
};

}  // namespace asymserve
