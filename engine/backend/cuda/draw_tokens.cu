#include <bit>
#include <cmath>

#include "engine/backend/cuda/draw_tokens.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/probability_mass.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = kMassThreads;
constexpr int kDigitBits = 10;
constexpr int kBins = 1 << kDigitBits;
constexpr int kDigits = 3;  // a weight of at most 1 has 30 bits that are not 0
static_assert(kBins == kThreads, "a thread for a bin");

struct DrawShared {
  SharedSlice<Mass> bins;  // [kBins]
  MassScratch scratch;
};

__device__ int Thread() {
  return static_cast<int>(threadIdx.x);
}

struct Row {
  const float* logits;
  int32_t size;
  float top;
  float inverse_temperature;

  __device__ float Scaled(int32_t i) const { return (logits[i] - top) * inverse_temperature; }
  /// The bits of a token's weight, which are ordered as weights are; 0: negligible.
  __device__ uint32_t Key(int32_t i) const {
    const float scaled = Scaled(i);
    return scaled < kNegligibleNats ? 0 : std::bit_cast<uint32_t>(ExpNonPositive(scaled));
  }
};

__device__ float Weight(uint32_t key) {
  return std::bit_cast<float>(key);
}

enum class Measure : uint8_t { kTokens, kMass };

__device__ Mass Measured(Measure measure, uint32_t key) {
  return measure == Measure::kTokens ? 1 : MassOf(Weight(key));
}

/// A place in the list of tokens by falling weight and rising id.
struct Place {
  uint32_t key;  // 0: behind the last
  Mass above;    // of the tokens of larger keys, as measured
  Mass ties;     // tokens of that key before it
};

/// The first place through which the measure exceeds `target`.
__device__ Place FindPlace(const Row& row, Measure measure, Mass target, const DrawShared& shared) {
  const SharedArray<Mass> bins = Shared("bins", shared.bins);
  uint32_t prefix = 0;
  Mass above = 0;
  for (int digit = kDigits - 1; digit >= 0; --digit) {
    const int shift = digit * kDigitBits;
    bins[Thread()] = 0;
    __syncthreads();
    for (int32_t i = Thread(); i < row.size; i += kThreads) {
      const uint32_t key = row.Key(i);
      if (key == 0 || key >> shift >> kDigitBits != prefix) continue;
      const auto bin = static_cast<int>(key >> shift) % kBins;
      bins.AtomicAdd(kBins - 1 - bin, Measured(measure, key));
    }
    __syncthreads();
    const Mass own = bins[Thread()];
    const MassPlace bin = LocateMass(own, target - above, shared.scratch);
    if (bin.thread < 0) return {0, bin.above, 0};  // in the first round, or never
    prefix = prefix << kDigitBits | static_cast<uint32_t>(kBins - 1 - bin.thread);
    above += bin.above;
  }
  return {prefix, above, (target - above) / Measured(measure, prefix)};
}

/// The mass of the tokens whose keys are above this one.
__device__ Mass MassAbove(const Row& row, uint32_t key, const DrawShared& shared) {
  Mass sum = 0;
  for (int32_t i = Thread(); i < row.size; i += kThreads) {
    const uint32_t other = row.Key(i);
    if (other > key) sum += MassOf(Weight(other));
  }
  return BlockMass(sum, shared.scratch);
}

/// The first token through which the sum of `value`, by id, exceeds `target`; it does.
template <typename Value>
__device__ int32_t FindToken(int32_t size, Mass target, const DrawShared& shared, Value value) {
  int32_t begin = 0;
  int32_t end = size;
  while (end - begin > kThreads) {  // a part for each warp
    const int32_t part = (end - begin + kWarpLanes - 1) / kWarpLanes;
    const int32_t first = begin + Thread() / kWarpLanes * part;
    const int32_t last = first + part < end ? first + part : end;
    Mass sum = 0;
    for (int32_t i = first + Thread() % kWarpLanes; i < last; i += kWarpLanes) sum += value(i);
    sum = WarpMass(sum);
    const MassPlace place =
        LocateMass(Thread() % kWarpLanes == 0 ? sum : 0, target, shared.scratch);
    begin += place.thread / kWarpLanes * part;
    end = begin + part < end ? begin + part : end;
    target -= place.above;
  }
  const int32_t i = begin + Thread();
  return begin + LocateMass(i < end ? value(i) : 0, target, shared.scratch).thread;
}

/// Of a mass, the part that a number in [0, 1) stands for. Less than all of it: of the doubles
/// below 1 the largest is 2^-53 less, and the product with it is not rounded up to the mass.
__device__ Mass Part(double uniform, Mass mass) {
  return static_cast<Mass>(uniform * static_cast<double>(mass));
}

__device__ int32_t DrawFromAll(const Row& row, double uniform, const DrawShared& shared) {
  const auto mass = [&](int32_t i) { return MassOf(ExpNonPositive(row.Scaled(i))); };
  Mass sum = 0;
  for (int32_t i = Thread(); i < row.size; i += kThreads) sum += mass(i);
  const Mass all = BlockMass(sum, shared.scratch);
  return FindToken(row.size, Part(uniform, all), shared, mass);
}

__device__ int32_t DrawFiltered(const Row& row, const TokenDraw& draw, const DrawShared& shared) {
  Place last = {0, 0, 0};  // that is kept; with key 0 all are
  if (draw.top_k > 0 && draw.top_k < row.size) {
    last = FindPlace(row, Measure::kTokens, static_cast<Mass>(draw.top_k - 1), shared);
  }
  Mass kept = MassAbove(row, last.key, shared) + (last.ties + 1) * MassOf(Weight(last.key));
  if (draw.top_p < 1) {  // the first place through which the mass is at least the share
    const auto wanted =
        static_cast<Mass>(ceil(static_cast<double>(draw.top_p) * static_cast<double>(kept)));
    last = FindPlace(row, Measure::kMass, wanted - 1, shared);
    kept = last.above + (last.ties + 1) * MassOf(Weight(last.key));
  }
  // The largest weight is 1.
  const auto floor = std::bit_cast<uint32_t>(draw.min_p);
  if (draw.min_p > 0 && floor > last.key) kept = MassAbove(row, floor - 1, shared);
  const Place drawn = FindPlace(row, Measure::kMass, Part(draw.uniform, kept), shared);
  return FindToken(row.size, drawn.ties, shared,
                   [&](int32_t i) { return Mass{row.Key(i) == drawn.key ? 1u : 0u}; });
}

/// A block for a draw.
__global__ void __launch_bounds__(kThreads) DrawTokensKernel(DrawRows rows, DrawShared shared) {
  AwaitEarlierKernels();
  const TokenDraw draw = rows.draws[blockIdx.x];
  const BestLogit best = draw.edit_count > 0 ? rows.edited[blockIdx.x] : rows.best[blockIdx.x];
  int32_t token = best.token;
  if (rows.best[blockIdx.x].token == kNanLogits) {
    token = kNanLogits;
  } else if (best.token == kNanLogits || best.value == INFINITY || best.value == -INFINITY) {
    token = kNothingToDraw;
  } else if (draw.inverse_temperature > 0) {
    const Row row = {rows.logits + int64_t{draw.row} * rows.vocabulary, rows.vocabulary, best.value,
                     draw.inverse_temperature};
    token =
        draw.filters() ? DrawFiltered(row, draw, shared) : DrawFromAll(row, draw.uniform, shared);
  }
  if (Thread() == 0) rows.drawn[blockIdx.x].token = token;
}

}  // namespace

cudaError_t DrawTokens(const DrawRows& rows, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  SharedPlan plan;
  DrawShared shared;
  shared.bins = plan.Take<Mass>(kBins);
  shared.scratch.sums = plan.Take<Mass>(kWarpLanes);
  shared.scratch.place = plan.Take<MassPlace>(1);
  return Launch<DrawTokensKernel>(dim3(static_cast<unsigned>(rows.count)), dim3(kThreads),
                                  plan.bytes(), stream, rows, shared);
}

}  // namespace asymserve::cuda
