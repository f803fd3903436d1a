#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/simt/shared_array.h"

// Twins of the instructions that move and multiply matrices: which lane holds which element is as
// in the tables of the PTX ISA ("Matrix Fragments for mma.m16n8k16", "... for mma.m16n8k32",
// "ldmatrix"). All 32 lanes of a warp call them together;
// a warp that has fewer is a fault. engine/backend/cuda/ptx.cuh has the
// instructions themselves under the same names.

namespace simt {

/// d = a b + c with a [16][16], b [16][8] of 16 bit floats in pairs, lower index in the lower half,
/// and c, d [16][8] in fp32. The products of an element are summed in double and rounded once: a
/// device's order of summation is its own.
void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
            const Site& site);
void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
             const Site& site);
/// d = a b + c with a [16][32], b [32][8] of int8, four in a register, and c, d [16][8] in int32.
void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4],
           const Site& site);

/// ldmatrix of four matrices of 8 rows of 16 bytes: lane i says where row i % 8 of matrix i / 8 is.
/// `offset`: in shared memory, a multiple of 16. `transposed`: .trans
void LoadMatrix4(uint32_t (&r)[4], uint32_t offset, bool transposed, const Site& site);

/// cp.async of `bytes` = 4, 8 or 16 to shared memory: arrives when its group is waited for.
void CopyAsync(uint32_t offset, const void* source, uint32_t bytes);

/// cvt.rn.f16x2.f32, add.rn.f16x2 and mul.rn.f16x2: two fp16 in a register, the first in the lower
/// half.
uint32_t PackHalves(float low, float high);
uint32_t AddHalves(uint32_t a, uint32_t b);
uint32_t MultiplyHalves(uint32_t a, uint32_t b);

}  // namespace simt
