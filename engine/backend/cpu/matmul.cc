#include "engine/backend/cpu/matmul.h"

#include <algorithm>

#include "engine/base/status.h"

namespace asymserve {
namespace {

// Below about this many multiplications (2 us) a second thread costs more than it brings.
constexpr int64_t kMinParallelProducts = 100'000;
constexpr int64_t kMinChunkProducts = 40'000;
constexpr int kChunksPerThread = 4;
constexpr int64_t kMaxChunkRows = 128;

constexpr int64_t CeilDivide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

bool IsQuantized(DType dtype) {
  return Info(dtype).block_elements > 1;
}

}  // namespace

int64_t MatMulRunner::ScratchBytes(int64_t max_rows, int64_t max_inputs) {
  const int64_t blocks = CeilDivide(max_inputs, kQuantBlock);
  const int64_t tiles = CeilDivide(max_rows, kTileRows);
  return tiles * blocks * static_cast<int64_t>(sizeof(ActivationBlock));
}

absl::Status MatMulRunner::Reserve(int64_t max_rows, int64_t max_inputs) {
  activations_ = AlignedBuffer();
  ASYMSERVE_ASSIGN_OR_RETURN(activations_,
                             AlignedBuffer::Allocate(memory_.region(MemoryClass::kWorkspace),
                                                     ScratchBytes(max_rows, max_inputs)));
  max_rows_ = max_rows;
  max_inputs_ = max_inputs;
  return absl::OkStatus();
}

void MatMulRunner::Run(float* out, const float* x, int64_t rows, const PackedWeight& w) {
  if (rows == 0) return;
  const auto quantized = [](const PackedWeight::Segment& s) { return IsQuantized(s.dtype); };
  if (std::any_of(w.segments().begin(), w.segments().end(), quantized)) {
    Quantize(x, rows, w.cols());
  }
  for (const PackedWeight::Segment& segment : w.segments()) RunSegment(out, x, rows, w, segment);
}

void MatMulRunner::Quantize(const float* x, int64_t rows, int64_t inputs) {
  constexpr int64_t kMinChunkInputs = 32768;  // about 2 us
  const int64_t blocks = inputs / kQuantBlock;
  const int64_t tiles = CeilDivide(rows, kTileRows);
  const int64_t tiles_per_chunk = CeilDivide(kMinChunkInputs, kTileRows * inputs);
  pool_.ParallelFor(static_cast<int>(CeilDivide(tiles, tiles_per_chunk)), [&](int chunk,
                                                                              int /*thread*/) {
    const int64_t last = std::min(tiles, (chunk + 1) * tiles_per_chunk);
    for (int64_t tile = chunk * tiles_per_chunk; tile < last; ++tile) {
      const int64_t row = tile * kTileRows;
      kernels_.quantize(activations_.As<ActivationBlock>() + tile * blocks, x + row * inputs,
                        inputs, static_cast<int>(std::min<int64_t>(rows - row, kTileRows)), blocks);
    }
  });
}

void MatMulRunner::RunSegment(float* out, const float* x, int64_t rows, const PackedWeight& w,
                              const PackedWeight::Segment& segment) {
  MatMulChunk whole = {};
  whole.panels = segment.panels;
  whole.panel_bytes = segment.panel_bytes;
  whole.inputs = w.cols();
  whole.columns = segment.rows;
  whole.activations = activations_.As<const ActivationBlock>();
  whole.x = x;
  whole.x_stride = w.cols();
  whole.out = out + segment.first_row;
  whole.out_stride = w.rows();
  whole.last_panel = segment.panel_count();
  whole.last_row = rows;

  const auto run = kernels_.matmul[static_cast<int>(segment.dtype)];
  const int64_t products = rows * segment.rows * w.cols();
  if (pool_.threads() == 1 || products < kMinParallelProducts) {
    run(whole);
    return;
  }
  const int64_t row_chunks = CeilDivide(rows, kMaxChunkRows);
  const int64_t wanted = std::clamp<int64_t>(products / kMinChunkProducts, 1,
                                             int64_t{pool_.threads()} * kChunksPerThread);
  const int64_t panel_chunks = std::min<int64_t>(whole.last_panel, CeilDivide(wanted, row_chunks));
  pool_.ParallelFor(static_cast<int>(row_chunks * panel_chunks), [&](int chunk, int /*thread*/) {
    MatMulChunk part = whole;
    const int64_t panels = chunk % panel_chunks;
    const int64_t row = chunk / panel_chunks * kMaxChunkRows;
    part.first_panel = static_cast<int32_t>(whole.last_panel * panels / panel_chunks);
    part.last_panel = static_cast<int32_t>(whole.last_panel * (panels + 1) / panel_chunks);
    part.first_row = row;
    part.last_row = std::min(rows, row + kMaxChunkRows);
    run(part);
  });
}

}  // namespace asymserve
