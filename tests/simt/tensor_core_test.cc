#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <random>
#include <vector>

#include "engine/backend/cuda/launch.cuh"
#include "engine/base/float16.h"
#include "tests/simt/orders.h"
#include "tests/simt/tensor_core_kernels.cuh"

// Against plain products: the matrices come out right only if every lane holds the elements that
// the PTX tables say. The index formulas of the test kernels were written from those tables, apart
// from those of the twins.

namespace asymserve {
namespace {

using ::testing::HasSubstr;

std::string Fault() {
  return simt::Machine::Instance().TakeFault();
}

uint16_t BrainOf(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

template <bool kBrain>
void ExpectProduct() {
  std::mt19937 random(5);
  std::uniform_int_distribution<int> small(-8, 8);  // exact in both formats, and so are the sums
  std::vector<float> a(256);
  std::vector<float> b(128);
  for (float& x : a) x = static_cast<float>(small(random)) / 4;
  for (float& x : b) x = static_cast<float>(small(random)) / 4;
  std::vector<uint16_t> a16;
  std::vector<uint16_t> b16;
  for (const float x : a) a16.push_back(kBrain ? BrainOf(x) : FloatToHalf(x));
  for (const float x : b) b16.push_back(kBrain ? BrainOf(x) : FloatToHalf(x));
  SharedPlan plan;
  MatrixArrays arrays;
  arrays.a = plan.Take<uint16_t>(256);
  arrays.b = plan.Take<uint16_t>(256);
  const auto out = simt::SameInEveryOrder([&] {
    std::vector<float> product(128, -1);
    EXPECT_EQ(Launch<MultiplyByLdmatrix<kBrain>>(1, 32, plan.bytes(), nullptr, product.data(),
                                                 a16.data(), b16.data(), arrays),
              cudaSuccess)
        << Fault();
    return product;
  });
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += a[16 * i + k] * b[8 * k + j];
      EXPECT_EQ(out[8 * i + j], sum) << i << " " << j;
    }
  }
}

TEST(TensorCoreTest, LdmatrixAndMmaGiveTheProductOfHalves) {
  ExpectProduct<false>();
}
TEST(TensorCoreTest, LdmatrixAndMmaGiveTheProductOfBrainFloats) {
  ExpectProduct<true>();
}

struct Bytes {
  std::vector<int8_t> a = std::vector<int8_t>(512);
  std::vector<int8_t> b = std::vector<int8_t>(256);
  std::vector<int32_t> product = std::vector<int32_t>(128);

  Bytes() {
    std::mt19937 random(6);
    std::uniform_int_distribution<int> byte(-128, 127);
    for (int8_t& x : a) x = static_cast<int8_t>(byte(random));
    for (int8_t& x : b) x = static_cast<int8_t>(byte(random));
    for (size_t i = 0; i < 16; ++i) {
      for (size_t j = 0; j < 8; ++j) {
        for (size_t k = 0; k < 32; ++k) product[8 * i + j] += a[32 * i + k] * b[32 * j + k];
      }
    }
  }
  template <bool kSwapped>
  std::vector<int32_t> Multiply() const {
    std::vector<uint32_t> wa(128);
    std::vector<uint32_t> wb(64);
    std::memcpy(wa.data(), a.data(), a.size());
    std::memcpy(wb.data(), b.data(), b.size());
    std::vector<int32_t> out(128);
    EXPECT_EQ(Launch<MultiplyBytes<kSwapped>>(1, 32, 0, nullptr, out.data(), wa.data(), wb.data()),
              cudaSuccess)
        << Fault();
    return out;
  }
};

TEST(TensorCoreTest, MmaGivesTheProductOfBytes) {
  const Bytes bytes;
  EXPECT_EQ(simt::SameInEveryOrder([&] { return bytes.Multiply<false>(); }), bytes.product);
}

TEST(TensorCoreTest, AFragmentInTheWrongOrderGivesAnotherProduct) {
  const Bytes bytes;
  const std::vector<int32_t> wrong = bytes.Multiply<true>();
  int same = 0;
  for (size_t i = 0; i < 128; ++i) same += wrong[i] == bytes.product[i] ? 1 : 0;
  EXPECT_LT(same, 8);
}

__global__ void LoadsAMatrix(uint32_t* out, SharedSlice<uint16_t> slice) {
  const SharedArray<uint16_t> s = Shared("s", slice);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) s[8 * lane + i] = static_cast<uint16_t>(i);
  __syncthreads();
  uint32_t r[4];
  LoadMatrix4<false>(r, s, int64_t{8} * lane);
  out[lane] = r[0];
}

TEST(TensorCoreTest, AWarpOfFewerThan32LanesMayNotUseItsInstructions) {
  simt::ForEachOrder([] {
    std::vector<uint32_t> words(128);
    std::vector<int32_t> product(128);
    const uint32_t* from = words.data();
    EXPECT_EQ(Launch<MultiplyBytes<false>>(1, 31, 0, nullptr, product.data(), from, from),
              cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), AllOf(HasSubstr("mma at ptx.cuh:"), HasSubstr("in a warp of 31 lanes")));
    SharedPlan plan;
    const auto slice = plan.Take<uint16_t>(int64_t{64} * 8);
    EXPECT_EQ(Launch<LoadsAMatrix>(1, 48, plan.bytes(), nullptr, words.data(), slice),
              cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), AllOf(HasSubstr("ldmatrix at"), HasSubstr("in a warp of 16 lanes")));
    EXPECT_EQ(Launch<LoadsAMatrix>(1, 64, plan.bytes(), nullptr, words.data(), slice), cudaSuccess)
        << Fault();
  });
}

template <CopyFault kFault>
cudaError_t Copy(std::vector<float>* out) {
  alignas(16) float from[64];
  for (int i = 0; i < 64; ++i) from[i] = static_cast<float>(i);
  SharedPlan plan;
  const auto slice = plan.Take<float>(64);
  out->assign(64, -1);
  const float* source = from;
  return Launch<CopiesAsynchronously<kFault>>(1, 32, plan.bytes(), nullptr, out->data(), source,
                                              slice);
}

TEST(AsyncCopyTest, ArrivesWhenItsGroupIsWaitedFor) {
  const auto out = simt::SameInEveryOrder([] {
    std::vector<float> copy;
    EXPECT_EQ(Copy<CopyFault::kNone>(&copy), cudaSuccess) << Fault();
    return copy;
  });
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(out[i], static_cast<float>(i < 32 ? 31 - i : 95 - i));
}

TEST(AsyncCopyTest, ReadingBeforeItIsWaitedForIsCaughtInEveryOrder) {
  simt::ForEachOrder([] {
    std::vector<float> out;
    EXPECT_EQ(Copy<CopyFault::kNoWait>(&out), cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), HasSubstr("cp.async not waited for"));
    EXPECT_EQ(Copy<CopyFault::kTooFewWaited>(&out), cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), HasSubstr("cp.async not waited for"));
    EXPECT_EQ(Copy<CopyFault::kNotCommitted>(&out), cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), HasSubstr("cp.async not waited for"));
  });
}

TEST(AsyncCopyTest, OthersNeedABarrierAfterTheWait) {
  simt::ForEachOrder([] {
    std::vector<float> out;
    EXPECT_EQ(Copy<CopyFault::kNoBarrier>(&out), cudaErrorLaunchFailure);
    EXPECT_THAT(Fault(), ::testing::AnyOf(HasSubstr("race"), HasSubstr("cp.async not waited for"),
                                          HasSubstr("uninitialized")));
  });
}

}  // namespace
}  // namespace asymserve
