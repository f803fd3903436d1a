#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/draw_rows.h"

namespace asymserve::cuda {

/// The token of each draw, after ArgMax and EditLogits: greedy, or by temperature, top_k, top_p and
/// min_p in this order, with the draw's random number.
///
/// A block of 1024 threads for a draw, and no sort. Sorted by falling weight and rising id, what
/// each filter leaves is a beginning of the list, and the token is a place in it: all are the place
/// where a sum (of tokens, or of their probability) first exceeds a number. That place is found by
/// radix select on the bits of the weights: a histogram of the sums by ten bits at a time, three
/// times, each time only of what shares the bits found before. So top_p costs three passes over
/// the row and not its order, of which a draw needs nothing else; a row of 32k to 256k floats
/// stays in L2 meanwhile, and thresholds take 12 KB of shared memory at any size, where a sort
/// moves the row and its ids several times. Tokens of one weight follow by id, and so does
/// everything when nothing is filtered: that place is found by sums over parts of the row, each
/// time one of 32. Passes: 3 for top_k and one for what it leaves, 3 for top_p, one for min_p, and
/// to draw 3 and about one more, or two when nothing is filtered.
///
/// Against the host: weights have its bits. Its sums are doubles in its order, these are of
/// integers, of weights rounded to multiples of 2^-45 of the largest one's (those from 2^-22 of it
/// on exactly). So a place differs only when its number is nearer than 2^-46 for each smaller
/// token kept, and the host's own rounding of 2^-53 of the sum for each token kept, to the edge
/// between two tokens. For a random number that has, with n tokens kept, s of them smaller than
/// 2^-22, a probability of at most n s 2^-46 + n^2 2^-53: 4e-11 for 50 tokens. Without a filter,
/// for 131,072 tokens, it is 5e-7 when rounding goes either way by chance. Tokens under 2^-46 of
/// the largest are not drawn without filters, either; with them none under exp(-30) is, as on the
/// host.
cudaError_t DrawTokens(const DrawRows& rows, cudaStream_t stream);

}  // namespace asymserve::cuda
