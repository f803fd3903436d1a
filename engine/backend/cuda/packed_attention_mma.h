#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/paged_attention.h"

namespace asymserve::cuda {

/// What PagedAttention computes, from the same plan, in the same states, but with tensor cores:
/// query heads of a KV head are the columns of mma.m16n8k16, and codes become its other operand in
/// registers. Goes by the tiles of the plan: a row that has a tile alone is a block's, with 8 or 16
/// of its heads, as in decoding; of rows of a prompt up to 32 heads, of several rows, share what a
/// block decodes. A row's bits are the same in either, whatever the other rows are. Needs
/// CanUsePackedAttentionMma (attention_choice.h); cudaErrorInvalidValue for sizes and frames that
/// it refuses.
///
/// Inputs of products are rounded to fp16, u = 2^-11, sums are fp32 (fp32 rounding, some 2^-24 for
/// an addition, is left out below):
///  * a query by u relative to each channel, above 2^-28 of its head's largest magnitude. Its scale
///    is a power of two, so no query is too large or too small;
///  * learned codes: entries of codebooks by u (those of a profile are fp16: not at all), the sum
///  of
///    a subvector's n planes by u of every partial sum; fp16 pages and the codes of int8 keys not
///    at all, int8 values by u. Infinite when it is over 65504;
///  * weights by u, below 2^-14 by 2^-25; they are summed after that.
/// So with K = sum over channels of |q||z|, in units of scores, scores are off by at most
/// e = (1 + n) u K to first order, n = 0 for stored fp16 and int8, and outputs by at most
/// 2 (e + u) max |v| + (1 + n) u max |v|. Errors are independent, so that what is seen is some
/// tenth of that.
cudaError_t PackedAttentionMma(const AttentionArgs& args, cudaStream_t stream);

}  // namespace asymserve::cuda
