#pragma once

#include <cstdint>

#include "engine/kv/block_format.h"
#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"

// Blocks of kv/block_format.h written and read by the host: the reference for every backend.

namespace asymserve {

/// Writes token `slot` of a near block (kHalf or kInt8). A value that the format cannot hold, and
/// NaN, are stored as NaN: kHalf the value, kInt8 the token's scale.
void StoreNear(KvCodec near, KvTensor tensor, int32_t head_size, int32_t slot, const float* x,
               uint8_t* block);
/// Reads a near block into x [P][D].
void LoadNear(KvCodec near, KvTensor tensor, int32_t head_size, const uint8_t* block, float* x);

/// Encodes x [P][D] into `base` and, for kPlanes with fresh planes, `refinement`; both are wholly
/// written, padding included. Keys of kPlanes are those rotated back to their frame. kInt8 and
/// kFitted values are as they come (EncodeBlock rotates kFitted values itself). `code` is used by
/// kPlanes only. Deterministic, whatever the instruction set.
void EncodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const float* x, uint8_t* base, uint8_t* refinement);
/// The inverse: out [P][D], what is stored. `refinement` null: base planes only.
void DecodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const uint8_t* base, const uint8_t* refinement, float* out);

/// HadamardInPlace (kv/hadamard.h).
void Hadamard(float* x, int32_t n);

}  // namespace asymserve
