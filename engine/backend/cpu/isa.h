#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace asymserve {

/// Instruction sets the kernels are compiled for. All compute the same bits.
enum class Isa : uint8_t {
  kAuto,      // the best of this machine
  kPortable,  // plain C++, any machine
  kAvx2,      // AVX2, FMA, F16C
  kAvx512,    // AVX-512 F, BW, DQ, VL, VNNI
  kAmx,       // those, and AMX tiles of int8 for products of eight rows and more
};

std::string_view IsaName(Isa isa);

/// Whether this processor has the instructions and the operating system saves their registers; it
/// is asked to do so for the tiles of kAmx. kAuto is always supported.
bool IsaSupported(Isa isa);

/// All that this machine supports, slowest first, without kAuto.
std::vector<Isa> SupportedIsas();

}  // namespace asymserve
