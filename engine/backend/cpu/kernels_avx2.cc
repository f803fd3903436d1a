#include "engine/backend/cpu/kernels.h"

// Compiled with this instruction set's flags (CMakeLists.txt): nothing here may be reached before
// IsaSupported said so, and no header here may define functions that other files also use.

#if defined(__x86_64__)

#include "engine/backend/cpu/kernel_table.h"
#include "engine/backend/cpu/simd_avx2.h"

namespace asymserve {

const Kernels* Avx2Kernels() {
  static constexpr Kernels kKernels = MakeKernels<Avx2Simd>();
  return &kKernels;
}

}  // namespace asymserve

#else

namespace asymserve {

const Kernels* Avx2Kernels() {
  return nullptr;
}

}  // namespace asymserve

#endif
