#include "tests/simt/tensor_core.h"

#include <array>
#include <bit>
#include <cstring>

#include "engine/base/float16.h"

namespace simt {
namespace {

/// One lane's operands of an m16n8k16 or m16n8k32.
struct Operands {
  uint32_t a[4];
  uint32_t b[2];
  uint32_t c[4];
};
static_assert(sizeof(Operands) <= Machine::kDepositBytes);

struct Place {
  int row, column;
};

// `group` is lane / 4 and `in_group` lane % 4 in the words of the PTX ISA.
Place PlaceInA16(int lane, int i) {
  const int group = lane / 4;
  const int in_group = lane % 4;
  const bool upper = i < 2 || (i >= 4 && i < 6);
  return {upper ? group : group + 8, in_group * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Place PlaceInB16(int lane, int i) {
  return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4};
}
Place PlaceInA8(int lane, int i) {
  const bool upper = i < 4 || (i >= 8 && i < 12);
  return {upper ? lane / 4 : lane / 4 + 8, lane % 4 * 4 + (i & 3) + (i < 8 ? 0 : 16)};
}
Place PlaceInB8(int lane, int i) {
  return {lane % 4 * 4 + (i & 3) + (i < 4 ? 0 : 16), lane / 4};
}
Place PlaceInC(int lane, int i) {
  return {i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + (i & 1)};
}

/// m16n8k16 of one kind of 16 bit floats. The products of an element are summed in double.
template <float (*kToFloat)(uint16_t)>
struct Floats {
  static constexpr int kDepth = 16;
  using Element = double;
  using Sum = double;
  using Result = float;
  static Place InA(int lane, int i) { return PlaceInA16(lane, i); }
  static Place InB(int lane, int i) { return PlaceInB16(lane, i); }
  static double At(const uint32_t* registers, int i) {
    return kToFloat(static_cast<uint16_t>(registers[i / 2] >> (i % 2 * 16)));
  }
  static double Start(uint32_t c) { return std::bit_cast<float>(c); }
};

/// m16n8k32 of int8. Sums wrap, as without .satfinite.
struct Bytes {
  static constexpr int kDepth = 32;
  using Element = int32_t;
  using Sum = uint32_t;
  using Result = int32_t;
  static Place InA(int lane, int i) { return PlaceInA8(lane, i); }
  static Place InB(int lane, int i) { return PlaceInB8(lane, i); }
  static int32_t At(const uint32_t* registers, int i) {
    return static_cast<int8_t>(registers[i / 4] >> (i % 4 * 8) & 0xFF);
  }
  static uint32_t Start(uint32_t c) { return c; }
};

template <typename Format>
using Product = std::array<std::array<typename Format::Result, 8>, 16>;

template <typename T>
T TakeFrom(const std::byte* bytes) {
  T value = {};
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

/// Of what all lanes brought.
template <typename Format>
Product<Format> Multiply(const Machine::Meeting& meeting) {
  typename Format::Element left[16][Format::kDepth];
  typename Format::Element right[Format::kDepth][8];
  typename Format::Sum sums[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto theirs = TakeFrom<Operands>(meeting.deposits[static_cast<size_t>(lane)].data());
    for (int i = 0; i < Format::kDepth / 2; ++i) {
      const Place p = Format::InA(lane, i);
      left[p.row][p.column] = Format::At(theirs.a, i);
    }
    for (int i = 0; i < Format::kDepth / 4; ++i) {
      const Place p = Format::InB(lane, i);
      right[p.row][p.column] = Format::At(theirs.b, i);
    }
    for (int i = 0; i < 4; ++i) {
      const Place p = PlaceInC(lane, i);
      sums[p.row][p.column] = Format::Start(theirs.c[i]);
    }
  }
  Product<Format> product;
  for (size_t row = 0; row < 16; ++row) {
    for (size_t k = 0; k < Format::kDepth; ++k) {
      for (size_t column = 0; column < 8; ++column) {
        sums[row][column] += static_cast<typename Format::Sum>(left[row][k] * right[k][column]);
      }
    }
    for (size_t column = 0; column < 8; ++column) {
      product[row][column] = static_cast<typename Format::Result>(sums[row][column]);
    }
  }
  return product;
}

Machine::Meeting& MeetingOfWholeWarp(const char* instruction, const void* deposit, size_t bytes,
                                     const Site& site) {
  Machine::Instance().NeedWholeWarp(instruction, site);
  return Machine::Instance().Collective(~0u, deposit, bytes, site);
}

template <typename Format>
void Mma(typename Format::Result (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         const typename Format::Result (&c)[4], const Site& site) {
  using Result = typename Format::Result;
  static_assert(sizeof(Product<Format>) <= Machine::kOutcomeBytes);
  Operands mine = {};
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  std::memcpy(mine.c, c, sizeof(c));
  Machine::Meeting& meeting = MeetingOfWholeWarp("mma", &mine, sizeof(mine), site);
  if (!meeting.has_outcome) {
    const Product<Format> product = Multiply<Format>(meeting);
    std::memcpy(meeting.outcome.data(), &product, sizeof(product));
    meeting.has_outcome = true;
  }
  for (int i = 0; i < 4; ++i) {
    const Place p = PlaceInC(static_cast<int>(Machine::Instance().lane()), i);
    const auto element = static_cast<size_t>(p.row * 8 + p.column);
    d[i] = TakeFrom<Result>(meeting.outcome.data() + element * sizeof(Result));
  }
}

}  // namespace

void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
            const Site& site) {
  Mma<Floats<asymserve::HalfToFloat>>(d, a, b, c, site);
}

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
             const Site& site) {
  Mma<Floats<asymserve::BrainToFloat>>(d, a, b, c, site);
}

void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4],
           const Site& site) {
  Mma<Bytes>(d, a, b, c, site);
}

void LoadMatrix4(uint32_t (&r)[4], uint32_t offset, bool transposed, const Site& site) {
  Machine& machine = Machine::Instance();
  if (offset % 16 != 0) {
    machine.Fail("ldmatrix: a row at byte " + std::to_string(offset) +
                 " of shared memory, not a multiple of 16");
  }
  const Verdict verdict = machine.shared().Read(machine.toucher(), offset, 16);
  if (verdict.offence != Offence::kNone) machine.FailAccess(verdict, "reads", "a matrix row");
  uint16_t row[8];
  std::memcpy(row, machine.shared().data() + offset, sizeof(row));
  const Machine::Meeting& meeting = MeetingOfWholeWarp("ldmatrix", row, sizeof(row), site);
  const auto element = [&](int matrix, int i, int j) {
    const std::byte* theirs = meeting.deposits[static_cast<size_t>(8 * matrix + i)].data();
    return uint32_t{TakeFrom<uint16_t>(theirs + size_t{2} * static_cast<size_t>(j))};
  };
  const int group = static_cast<int>(machine.lane()) / 4;
  const int pair = static_cast<int>(machine.lane()) % 4 * 2;
  for (int m = 0; m < 4; ++m) {
    r[m] = transposed ? element(m, pair, group) | element(m, pair + 1, group) << 16
                      : element(m, group, pair) | element(m, group, pair + 1) << 16;
  }
}

void CopyAsync(uint32_t offset, const void* source, uint32_t bytes) {
  Machine& machine = Machine::Instance();
  const bool aligned = offset % bytes == 0 && reinterpret_cast<uintptr_t>(source) % bytes == 0;
  if ((bytes != 4 && bytes != 8 && bytes != 16) || !aligned) {
    machine.Fail("cp.async of " + std::to_string(bytes) + " bytes to byte " +
                 std::to_string(offset) + " of shared memory: size or alignment");
  }
  const Verdict verdict = machine.shared().BeginAsync(machine.toucher(), offset, bytes);
  if (verdict.offence != Offence::kNone) machine.FailAccess(verdict, "copies to", "shared memory");
  machine.CopyAsync(offset, source, bytes);
}

uint32_t PackHalves(float low, float high) {
  return asymserve::FloatToHalf(low) | uint32_t{asymserve::FloatToHalf(high)} << 16;
}

// A float holds more than twice the bits of an fp16, and two: rounding to it first
// changes nothing.
uint32_t AddHalves(uint32_t a, uint32_t b) {
  return PackHalves(asymserve::HalfToFloat(static_cast<uint16_t>(a)) +
                        asymserve::HalfToFloat(static_cast<uint16_t>(b)),
                    asymserve::HalfToFloat(static_cast<uint16_t>(a >> 16)) +
                        asymserve::HalfToFloat(static_cast<uint16_t>(b >> 16)));
}

uint32_t MultiplyHalves(uint32_t a, uint32_t b) {
  return PackHalves(asymserve::HalfToFloat(static_cast<uint16_t>(a)) *
                        asymserve::HalfToFloat(static_cast<uint16_t>(b)),
                    asymserve::HalfToFloat(static_cast<uint16_t>(a >> 16)) *
                        asymserve::HalfToFloat(static_cast<uint16_t>(b >> 16)));
}

}  // namespace simt
