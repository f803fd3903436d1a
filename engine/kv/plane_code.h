#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace asymserve {

/// The learned code of one (layer, tensor, KV head), D channels (kv-cache: "the learned code").
/// Vectors are rows, multiplied from the left:
///
///   z = (x - mean) encode                    x [D]: a key, rotated back to the start of its frame,
///                                            or a value
///   plane p stores a 4-bit index c_p; with s = subvector[p],
///   z'[4s + i] = sum over planes p of s, in order, of codebook[p][i][c_p], i in [0, 4)
///   x' = z' decode + mean                    decode = inverse of encode
///
/// Planes are in order of the distortion they remove: every even prefix is a code of its own.
struct PlaneCode {
  int32_t head_size = 0;           // D, a multiple of 4
  std::vector<uint8_t> subvector;  // [planes], in [0, D/4)
  std::vector<float> codebooks;    // [planes][4][16]: channel, then entry
  std::vector<float> encode;       // [D][D]: row d is what channel d of x adds to z
  std::vector<float> decode;       // [D][D]: row i is what channel i of z adds to x
  std::vector<float> mean;         // [D]

  int32_t planes() const { return static_cast<int32_t>(subvector.size()); }
  const float* codebook(int32_t plane) const {
    return codebooks.data() + static_cast<size_t>(plane) * 64;
  }
};

/// The codes of every item of a model, [L][2][G] as in KvScheme::items; empty codes where an item
/// is not kPlanes.
using PlaneCodes = std::vector<PlaneCode>;

/// Chooses the codes of z [D], already transformed: plane by plane the entry nearest to what the
/// planes before left, ties to the lowest index. Fixed order of operations.
void EncodePlanes(const PlaneCode& code, int32_t planes, const float* z, uint8_t* codes);

/// out [n] = x [n] times matrix [n][n], summed over the rows in order.
void TimesMatrix(const float* x, const float* matrix, int32_t n, float* out);

}  // namespace asymserve
