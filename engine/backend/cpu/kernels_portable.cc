#include "engine/backend/cpu/kernel_table.h"
#include "engine/backend/cpu/simd_portable.h"

namespace asymserve {

const Kernels* PortableKernels() {
  static constexpr Kernels kKernels = MakeKernels<PortableSimd>();
  return &kKernels;
}

}  // namespace asymserve
