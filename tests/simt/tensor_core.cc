#include "tests/simt/tensor_core.h"

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

double HalfValue(uint32_t bits) {
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t mantissa = bits & 0x3FF;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? __builtin_nan("") : sign * __builtin_inf();
  if (exponent == 0) return sign * mantissa * 0x1p-24;
  return sign * (1024 + mantissa) * __builtin_ldexp(1, static_cast<int>(exponent) - 25);
}
double BrainValue(uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

template <typename T>
T At(const Machine::Deposits& all, int lane) {
  T value = {};
  std::memcpy(&value, all[static_cast<size_t>(lane)].data(), sizeof(value));
  return value;
}

const Machine::Deposits& OfWholeWarp(const char* instruction, const void* deposit, size_t bytes,
                                     const Site& site) {
  Machine::Instance().NeedWholeWarp(instruction, site);
  return Machine::Instance().Collective(~0u, deposit, bytes, site);
}

template <double (*kValue)(uint32_t)>
void MmaFloat(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
              const Site& site) {
  Operands mine = {};
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  std::memcpy(mine.c, c, sizeof(c));
  Machine& machine = Machine::Instance();
  const Machine::Deposits& all = OfWholeWarp("mma", &mine, sizeof(mine), site);
  double left[16][16];
  double right[16][8];
  const int me = static_cast<int>(machine.lane());
  for (int k = 0; k < 4; ++k) {  // the lanes with my two rows of a
    const int lane = me / 4 * 4 + k;
    const auto other = At<Operands>(all, lane);
    for (int i = 0; i < 8; ++i) {
      const Place p = PlaceInA16(lane, i);
      left[p.row][p.column] = kValue(other.a[i / 2] >> (i % 2 * 16) & 0xFFFF);
    }
  }
  for (int k = 0; k < 8; ++k) {  // those with my two columns of b
    const int lane = me % 4 * 8 + k;
    const auto other = At<Operands>(all, lane);
    for (int i = 0; i < 4; ++i) {
      const Place p = PlaceInB16(lane, i);
      right[p.row][p.column] = kValue(other.b[i / 2] >> (i % 2 * 16) & 0xFFFF);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const Place p = PlaceInC(me, i);
    double sum = std::bit_cast<float>(mine.c[i]);
    for (int k = 0; k < 16; ++k) sum += left[p.row][k] * right[k][p.column];
    d[i] = static_cast<float>(sum);
  }
}

int32_t ByteOf(const uint32_t* registers, int i) {
  return static_cast<int8_t>(registers[i / 4] >> (i % 4 * 8) & 0xFF);
}

}  // namespace

void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
            const Site& site) {
  MmaFloat<HalfValue>(d, a, b, c, site);
}

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
             const Site& site) {
  MmaFloat<BrainValue>(d, a, b, c, site);
}

void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4],
           const Site& site) {
  Operands mine = {};
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  std::memcpy(mine.c, c, sizeof(c));
  Machine& machine = Machine::Instance();
  const Machine::Deposits& all = OfWholeWarp("mma", &mine, sizeof(mine), site);
  int32_t left[16][32];
  int32_t right[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto other = At<Operands>(all, lane);
    for (int i = 0; i < 16; ++i) {
      const Place p = PlaceInA8(lane, i);
      left[p.row][p.column] = ByteOf(other.a, i);
    }
    for (int i = 0; i < 8; ++i) {
      const Place p = PlaceInB8(lane, i);
      right[p.row][p.column] = ByteOf(other.b, i);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const Place p = PlaceInC(static_cast<int>(machine.lane()), i);
    uint32_t sum = mine.c[i];  // wraps, as without .satfinite
    for (int k = 0; k < 32; ++k) {
      sum += static_cast<uint32_t>(left[p.row][k] * right[k][p.column]);
    }
    d[i] = static_cast<int32_t>(sum);
  }
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
  const Machine::Deposits& all = OfWholeWarp("ldmatrix", row, sizeof(row), site);
  const auto element = [&](int matrix, int i, int j) {
    uint16_t value;
    std::memcpy(
        &value,
        all[static_cast<size_t>(8 * matrix + i)].data() + size_t{2} * static_cast<size_t>(j),
        sizeof(value));
    return uint32_t{value};
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

// A float holds more than twice the bits of an fp16, or a bf16, and two: rounding to it first
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

uint32_t PackBrains(float low, float high) {
  const auto brain = [](float value) -> uint32_t {
    const auto bits = std::bit_cast<uint32_t>(value);
    if (value != value) return 0x7FFF;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;  // a carry may give infinity, as it should
  };
  return brain(low) | brain(high) << 16;
}

uint32_t AddBrains(uint32_t a, uint32_t b) {
  return PackBrains(asymserve::BrainToFloat(static_cast<uint16_t>(a)) +
                        asymserve::BrainToFloat(static_cast<uint16_t>(b)),
                    asymserve::BrainToFloat(static_cast<uint16_t>(a >> 16)) +
                        asymserve::BrainToFloat(static_cast<uint16_t>(b >> 16)));
}

}  // namespace simt
