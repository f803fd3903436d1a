#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/kv/codec.h"
#include "tests/engine/backend/backend_fixture.h"

// Sealing with a learned code: every instruction set stores the bytes of the reference codec.

namespace asymserve {
namespace {

using ::asymserve::testing::KernelsOf;
using ::asymserve::testing::Matrix;

constexpr int32_t kP = kKvPageTokens;

/// A random code in which entries 3 and 9 of every codebook are the same, so that there are ties.
PlaneCode CodeWithTies(int32_t head_size, int32_t planes) {
  const auto numbers = [&](int64_t count, uint32_t seed) {
    const Matrix m = Matrix::Random(1, count, seed);
    return std::vector<float>(m.row(0), m.row(0) + count);
  };
  PlaneCode code;
  code.head_size = head_size;
  for (int32_t p = 0; p < planes; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p * 5 % (head_size / 4)));
  }
  code.codebooks = numbers(int64_t{planes} * 64, 1);
  for (size_t row = 0; row < code.codebooks.size(); row += 16) {
    code.codebooks[row + 9] = code.codebooks[row + 3];
  }
  code.encode = numbers(int64_t{head_size} * head_size, 2);
  code.mean = numbers(head_size, 4);
  return code;
}

class PlaneEncodeTest : public ::testing::TestWithParam<int32_t> {};

TEST_P(PlaneEncodeTest, StoresTheBytesOfTheReferenceCodecOnEveryInstructionSet) {
  const int32_t size = GetParam();
  const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = 6, .fresh_planes = 20};
  const PlaneCode code = CodeWithTies(size, item.fresh_planes);
  Matrix x = Matrix::Random(kP, size, 7);
  x.row(5)[1] = std::numeric_limits<float>::quiet_NaN();
  x.row(6)[0] = std::numeric_limits<float>::infinity();
  for (int32_t d = 0; d < size; ++d) x.row(7)[d] = code.mean[static_cast<size_t>(d)];
  std::vector<uint8_t> base(6 / 2 * kP);
  std::vector<uint8_t> refinement((20 - 6) / 2 * kP);
  EncodeBlock(item, KvTensor::kValue, size, &code, x.row(0), base.data(), refinement.data());
  for (const Isa isa : SupportedIsas()) {
    for (const bool refine : {true, false}) {
      std::vector<uint8_t> got_base(base.size(), 0xAA);
      std::vector<uint8_t> got_refinement(refinement.size(), 0xAA);
      const PlaneEncoder encoder = {.head_size = size,
                                    .base_planes = 6,
                                    .planes = refine ? 20 : 6,
                                    .subvector = code.subvector.data(),
                                    .codebooks = code.codebooks.data(),
                                    .encode = code.encode.data(),
                                    .mean = code.mean.data()};
      KernelsOf(isa).encode_planes(encoder, x.row(0), got_base.data(),
                                   refine ? got_refinement.data() : nullptr);
      EXPECT_EQ(got_base, base) << IsaName(isa) << " refine " << refine;
      if (!refine) continue;
      EXPECT_EQ(got_refinement, refinement) << IsaName(isa);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryHeadSize, PlaneEncodeTest, ::testing::Values(4, 24, 64, 80, 128, 256),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace asymserve
