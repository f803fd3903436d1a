#include "tests/simt/tensor_core_kernels.cuh"

// For nvcc: the instructions of ptx.cuh assemble.

namespace asymserve {

template __global__ void MultiplyByLdmatrix<false>(float*, const uint16_t*, const uint16_t*,
                                                   MatrixArrays);
template __global__ void MultiplyByLdmatrix<true>(float*, const uint16_t*, const uint16_t*,
                                                  MatrixArrays);
template __global__ void MultiplyBytes<false>(int32_t*, const uint32_t*, const uint32_t*);
template __global__ void CopiesAsynchronously<CopyFault::kNone>(float*, const float*,
                                                                SharedSlice<float>);

}  // namespace asymserve
