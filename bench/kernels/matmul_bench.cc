#include "bench/kernels/bench_support.h"

// The matrix products of SmolLM2-135M, by format, rows and threads. Weights are random bytes with
// small scales: time does not depend on the values.

namespace asymserve {
namespace {

constexpr int kLayers = 30;

struct Shape {
  int64_t inputs, outputs;
};
constexpr Shape kQkv = {576, 960};
constexpr Shape kOutput = {576, 576};
constexpr Shape kGateUp = {576, 3072};
constexpr Shape kDown = {1536, 576};
constexpr Shape kHead = {576, 49152};

std::unique_ptr<Weight> RandomWeight(Backend& backend, DType dtype, const Shape& shape,
                                     uint32_t seed) {
  std::vector<uint8_t> bytes(static_cast<size_t>(RowBytes(dtype, shape.inputs) * shape.outputs));
  std::minstd_rand generator(seed);
  // Below 0x40: no byte pair is an infinite or huge fp16 or fp32.
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator() >> 8) & 0x3F;
  const WeightSource source = {reinterpret_cast<const std::byte*>(bytes.data()), dtype,
                               shape.outputs, shape.inputs};
  auto weight = backend.PackWeight({&source, 1});
  Require(weight.status());
  return *std::move(weight);
}

/// One product at a time, from the same weights: they stay in the cache where they fit.
void BM_MatMul(benchmark::State& state, DType dtype, Shape shape) {
  const int64_t rows = state.range(0);
  const auto backend = MakeBenchBackend(static_cast<int>(state.range(1)));
  const auto weight = RandomWeight(*backend, dtype, shape, 1);
  Require(backend->Reserve(rows, shape.inputs));
  std::vector<float> x = RandomFloats(rows * shape.inputs, 2);
  std::vector<float> out(static_cast<size_t>(rows * shape.outputs));
  BestTime best;
  for (auto _ : state) {
    best.Measure([&] {
      Require(backend->MatMul(MakeMatrix(out.data(), rows, shape.outputs),
                              MakeMatrix(x.data(), rows, shape.inputs), *weight));
    });
  }
  state.counters["best_us"] = best.seconds() * 1e6;
  state.counters["GMAC/s"] =
      1e-9 * static_cast<double>(rows * shape.inputs * shape.outputs) / best.seconds();
  state.counters["GB/s"] = 1e-9 * static_cast<double>(weight->bytes()) / best.seconds();
}

void RowsAndThreads(benchmark::internal::Benchmark* benchmark) {
  for (const int64_t threads : {1, 2}) {
    for (const int64_t rows : {1, 4, 8, 16, 20, 64, 256}) benchmark->Args({rows, threads});
  }
  benchmark->ArgNames({"rows", "threads"})->UseRealTime();
}

BENCHMARK_CAPTURE(BM_MatMul, qkv_Q4_1, DType::kQ4_1, kQkv)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, output_Q4_1, DType::kQ4_1, kOutput)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, gate_up_Q4_1, DType::kQ4_1, kGateUp)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, down_Q4_1, DType::kQ4_1, kDown)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, head_Q8_0, DType::kQ8_0, kHead)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, head_F16, DType::kF16, kHead)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, gate_up_Q4_0, DType::kQ4_0, kGateUp)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, gate_up_Q8_0, DType::kQ8_0, kGateUp)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, gate_up_F16, DType::kF16, kGateUp)->Apply(RowsAndThreads);
constexpr Shape kWide = {768, 3072};  // K types have blocks of 256
BENCHMARK_CAPTURE(BM_MatMul, wide_Q4_K, DType::kQ4K, kWide)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, wide_Q5_K, DType::kQ5K, kWide)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_MatMul, wide_Q6_K, DType::kQ6K, kWide)->Apply(RowsAndThreads);

/// All products of a step in order, each layer with weights of its own, logits for all rows up to
/// 64 and for one in a prefill.
void BM_AllProducts(benchmark::State& state, Isa isa) {
  const int64_t rows = state.range(0);
  if (!IsaSupported(isa)) return state.SkipWithError("not available on this machine");
  const auto backend = MakeBenchBackend(static_cast<int>(state.range(1)), isa);
  std::vector<std::unique_ptr<Weight>> weights;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const Shape& shape : {kQkv, kOutput, kGateUp, kDown}) {
      weights.push_back(RandomWeight(*backend, DType::kQ4_1, shape, 3));
    }
  }
  const auto head = RandomWeight(*backend, DType::kQ8_0, kHead, 4);
  Require(backend->Reserve(rows, 1536));
  const int64_t logit_rows = rows > 64 ? 1 : rows;
  std::vector<float> x = RandomFloats(rows * 1536, 5);
  std::vector<float> out(static_cast<size_t>(std::max(rows * 3072, logit_rows * 49152)));
  const auto multiply = [&](const Weight& weight, int64_t row_count) {
    Require(backend->MatMul(MakeMatrix(out.data(), row_count, weight.rows()),
                            MakeMatrix(x.data(), row_count, weight.cols()), weight));
  };
  BestTime best;
  for (auto _ : state) {
    best.Measure([&] {
      for (const auto& weight : weights) multiply(*weight, rows);
      multiply(*head, logit_rows);
    });
  }
  state.counters["best_ms"] = best.seconds() * 1e3;
  state.counters["token/s"] = static_cast<double>(rows) / best.seconds();
}
BENCHMARK_CAPTURE(BM_AllProducts, auto, Isa::kAuto) -> Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_AllProducts, avx512, Isa::kAvx512)->Apply(RowsAndThreads);
BENCHMARK_CAPTURE(BM_AllProducts, avx2, Isa::kAvx2)->Apply(RowsAndThreads);

/// Packing of a model's weights, 66 MB in 30 layers.
void BM_PackWeight(benchmark::State& state) {
  const auto backend = MakeBenchBackend(static_cast<int>(state.range(0)));
  constexpr Shape kLayer = {576, 960 + 576 + 3072 + 1536};
  std::vector<uint8_t> bytes(static_cast<size_t>(RowBytes(DType::kQ4_1, kLayer.inputs)) *
                             kLayer.outputs);
  const WeightSource source = {reinterpret_cast<const std::byte*>(bytes.data()), DType::kQ4_1,
                               kLayer.outputs, kLayer.inputs};
  BestTime best;
  for (auto _ : state) {
    best.Measure([&] {
      for (int layer = 0; layer < kLayers; ++layer) {
        auto weight = backend->PackWeight({&source, 1});
        Require(weight.status());
      }
    });
  }
  state.counters["best_ms"] = best.seconds() * 1e3;
}
BENCHMARK(BM_PackWeight)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime();

}  // namespace
}  // namespace asymserve
