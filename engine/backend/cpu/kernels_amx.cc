#include "engine/backend/cpu/kernels.h"

// Compiled with this instruction set's flags (CMakeLists.txt), as the other files of kernels.

#if defined(__x86_64__)

#include "engine/backend/cpu/amx_matmul_kernel.h"

namespace asymserve {
namespace {

Kernels MakeAmxKernels() {
  Kernels k = *Avx512Kernels();
  const auto set = [&k](DType type, void (*matmul)(const MatMulChunk&)) {
    k.matmul[static_cast<int>(type)] = matmul;
  };
  set(DType::kQ4_0, AmxMatMul<Q4_0Format<Avx512Simd>, DType::kQ4_0>::Run);
  set(DType::kQ4_1, AmxMatMul<Q4_1Format<Avx512Simd>, DType::kQ4_1>::Run);
  set(DType::kQ8_0, AmxMatMul<Q8_0Format<Avx512Simd>, DType::kQ8_0>::Run);
  set(DType::kQ4K, AmxMatMul<Q4KFormat<Avx512Simd>, DType::kQ4K>::Run);
  set(DType::kQ5K, AmxMatMul<Q5KFormat<Avx512Simd>, DType::kQ5K>::Run);
  set(DType::kQ6K, AmxMatMul<Q6KFormat<Avx512Simd>, DType::kQ6K>::Run);
  // What copied the table: threads that are made from this one would have wide registers in use for
  // ever, which makes SSE code slow. g++ sees to it from -O2 on only.
  _mm256_zeroupper();
  return k;
}

}  // namespace

const Kernels* AmxKernels() {
  static const Kernels kKernels = MakeAmxKernels();
  return &kKernels;
}

}  // namespace asymserve

#else

namespace asymserve {

const Kernels* AmxKernels() {
  return nullptr;
}

}  // namespace asymserve

#endif
