#include "engine/backend/cpu/kv_arena.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/ragged.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr int64_t kWriteTokens = 32;           // per chunk
constexpr int32_t kFrameGrain = kGroupTokens;  // a softmax group must not cross a frame

/// Rotates a key by minus the angles of a position.
void RotateBack(const float* rope, bool interleaved, int32_t head_size, float* x) {
  const int32_t half = head_size / 2;
  const int32_t step = interleaved ? 2 : 1;
  const int32_t other = interleaved ? 1 : half;
  for (int32_t i = 0; i < half; ++i) {
    const float cosine = rope[i];
    const float sine = rope[half + i];
    const float a = x[i * step];
    const float b = x[i * step + other];
    x[i * step] = a * cosine + b * sine;
    x[i * step + other] = b * cosine - a * sine;
  }
}

}  // namespace

absl::Status KvArena::CheckShape(const KvShape& shape, const KvScheme& scheme) {
  ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(scheme, shape));
  if (HasPlanes(scheme) && scheme.frame_tokens % kFrameGrain != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cpu: KV frames of ", scheme.frame_tokens,
                                                   " tokens are not a multiple of ", kFrameGrain));
  }
  constexpr int64_t kMaxHeads = int64_t{1} << 24;
  if (int64_t{shape.layers} * shape.kv_heads > kMaxHeads) {
    return absl::InvalidArgumentError(
        absl::StrCat("cpu: KV cache of ", shape.layers, " layers, ", shape.kv_heads, " heads"));
  }
  return absl::OkStatus();
}

absl::Status KvArena::Init(const KvSetup& setup) {
  ASYMSERVE_RETURN_IF_ERROR(CheckShape(setup.shape, setup.scheme));
  const bool has_rope =
      setup.rope.data != nullptr && setup.rope.row_elements() == setup.shape.head_size;
  if (HasPlanes(setup.scheme) && !has_rope) {
    return absl::InternalError("KvInit: a learned scheme needs the rotary table");
  }
  KvLayout layout(setup.shape, setup.scheme);
  const ArenaCut cut(layout, setup.arena_bytes);
  if (cut.slabs < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV arena of ", setup.arena_bytes, " bytes; one slab of pages takes ", cut.slab_bytes));
  }
  ASYMSERVE_RETURN_IF_ERROR(KvTables::Check(setup));
  // The old tables go first, so that a region never holds both.
  tables_ = KvTables();
  absl::StatusOr<KvTables> tables = KvTables::Make(setup, memory_.region(MemoryClass::kTables));
  if (!tables.ok()) {
    arena_ = AlignedBuffer();  // nothing can be done until the next Init
    return Annotate(tables.status(), "KV tables");
  }
  const int64_t bytes = cut.slab_bytes * cut.slabs;
  if (bytes != arena_.bytes()) {
    arena_ = AlignedBuffer();
    absl::StatusOr<AlignedBuffer> arena =
        AlignedBuffer::Allocate(memory_.region(MemoryClass::kKv), bytes);
    if (!arena.ok()) return Annotate(arena.status(), absl::StrCat("KV arena of ", bytes, " bytes"));
    arena_ = *std::move(arena);
  }
  setup_ = setup;
  setup_.codes = nullptr;
  layout_ = std::move(layout);
  cut_ = cut;
  tables_ = *std::move(tables);
  rotates_values_ =
      std::any_of(setup.scheme.items.begin(), setup.scheme.items.end(), [](const KvItem& item) {
        return item.codec == KvCodec::kFitted || item.codec == KvCodec::kPlanes;
      });
  return absl::OkStatus();
}

// ---- Blocks -----------------------------------------------------------------------------------

KvArenaShape KvArena::arena_shape() const {
  if (arena_.data() == nullptr) return {};
  return {&setup_.shape, &setup_.scheme, &cut_};
}

uint8_t* KvArena::NearBlock(const KvPage& page, int32_t layer, KvTensor tensor,
                            int32_t head) const {
  if (NearCodec(page) == scheme().near) {
    return BlockIn(KvRecord::kNear, page.near, layer, tensor, head);
  }
  const PageId record = tensor == KvTensor::kKey ? page.near : page.exact_values;
  return Record(KvRecord::kNear, record) + layout_.ExactOffset(layer, head);
}

KvBlock KvArena::Block(const KvPage& page, KvTier tier, int32_t layer, KvTensor tensor,
                       int32_t head) const {
  if (tier == KvTier::kNear) {
    return {NearBlock(page, layer, tensor, head), nullptr, NearCodec(page), false};
  }
  const KvItem& item = setup_.scheme.item(shape(), layer, tensor, head);
  const bool fresh = tier == KvTier::kFresh && item.codec == KvCodec::kPlanes &&
                     item.fresh_planes > item.base_planes;
  return {BlockIn(KvRecord::kBase, page.base, layer, tensor, head),
          fresh ? BlockIn(KvRecord::kRefinement, page.refinement, layer, tensor, head) : nullptr,
          item.codec, true};
}

// ---- Write ------------------------------------------------------------------------------------

void KvArena::WriteToken(const KvStep& step, int32_t layer, int32_t sequence, int64_t token,
                         const float* keys) const {
  const auto s = static_cast<size_t>(sequence);
  const int32_t position = step.positions[static_cast<size_t>(token)];
  const int32_t slot = position % kPageTokens;
  const KvPage& page =
      step.pages[static_cast<size_t>(step.page_offset[s] + position / kPageTokens)];
  const int32_t size = shape().head_size;
  const float* values = keys + int64_t{shape().kv_heads} * size;
  for (int32_t head = 0; head < shape().kv_heads; ++head) {
    const float* key = keys + int64_t{head} * size;
    const float* value = values + int64_t{head} * size;
    uint8_t* key_block = NearBlock(page, layer, KvTensor::kKey, head);
    uint8_t* value_block = NearBlock(page, layer, KvTensor::kValue, head);
    if (NearCodec(page) == KvCodec::kInt8) {
      StoreNear(KvCodec::kInt8, KvTensor::kKey, size, slot, key, key_block);
      StoreNear(KvCodec::kInt8, KvTensor::kValue, size, slot, value, value_block);
      continue;
    }
    std::array<uint16_t, kMaxHeadSize> half;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    kernels_.to_half(half.data(), key, size);
    auto* column = reinterpret_cast<uint16_t*>(key_block) + slot;
    for (int32_t d = 0; d < size; ++d) column[d * kPageTokens] = half[static_cast<size_t>(d)];
    kernels_.to_half(reinterpret_cast<uint16_t*>(value_block) + int64_t{slot} * size, value, size);
  }
}

absl::Status KvArena::Write(const KvStep& step, int32_t layer, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(CheckStep(step, layer, qkv.rows()));
  ASYMSERVE_RETURN_IF_ERROR(CheckKvWrite(step, qkv, arena_shape()));
  const int64_t kv_elements = int64_t{2} * shape().kv_heads * shape().head_size;
  const int64_t tokens = qkv.rows();
  const int64_t keys = qkv.row_elements() - kv_elements;
  const int64_t chunks = (tokens + kWriteTokens - 1) / kWriteTokens;
  pool_.ParallelFor(static_cast<int>(chunks), [&](int chunk, int /*thread*/) {
    const int64_t last = std::min(tokens, (chunk + 1) * kWriteTokens);
    for (int64_t token = chunk * kWriteTokens; token < last; ++token) {
      const int32_t sequence = FindRange(step.token_offset, token);
      WriteToken(step, layer, sequence, token, qkv.Row<float>(token) + keys);
    }
  });
  return absl::OkStatus();
}

// ---- Seal -------------------------------------------------------------------------------------

void KvArena::SealBlock(const KvSealOp& op, int32_t layer, KvTensor tensor, int32_t head) const {
  const int32_t size = shape().head_size;
  const KvItem& item = scheme().item(shape(), layer, tensor, head);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): LoadNear fills it
  std::array<float, size_t{kPageTokens} * kMaxHeadSize> rows;
  LoadNear(scheme().near, tensor, size, BlockIn(KvRecord::kNear, op.near, layer, tensor, head),
           rows.data());
  uint8_t* base = BlockIn(KvRecord::kBase, op.base, layer, tensor, head);
  uint8_t* refinement = Index(op.refinement) >= 0
                            ? BlockIn(KvRecord::kRefinement, op.refinement, layer, tensor, head)
                            : nullptr;
  if (item.codec != KvCodec::kPlanes) {
    return EncodeBlock(item, tensor, size, nullptr, rows.data(), base, refinement);
  }
  if (tensor == KvTensor::kKey) {
    const int32_t frame_pages = scheme().frame_tokens / kPageTokens;
    const int32_t start = op.page / frame_pages * scheme().frame_tokens;
    for (int32_t t = 0; t < kPageTokens; ++t) {
      RotateBack(setup_.rope.Row<const float>(start), interleaved(), size,
                 rows.data() + int64_t{t} * size);
    }
  }
  const PlaneTables& code = tables_.head(layer, tensor, head).planes;
  const bool refine = refinement != nullptr && item.fresh_planes > item.base_planes;
  const PlaneEncoder encoder = {.head_size = size,
                                .base_planes = item.base_planes,
                                .planes = refine ? item.fresh_planes : item.base_planes,
                                .subvector = code.subvector,
                                .codebooks = code.codebooks,
                                .encode = code.encode,
                                .mean = code.mean};
  kernels_.encode_planes(encoder, rows.data(), base, refinement);
}

absl::Status KvArena::Seal(std::span<const KvSealOp> pages) {
  const int64_t positions = setup_.rope.data == nullptr ? 0 : setup_.rope.rows();
  ASYMSERVE_RETURN_IF_ERROR(CheckKvSeal(pages, positions, arena_shape()));
  const int32_t heads = shape().kv_heads;
  const int32_t blocks = shape().layers * 2 * heads;
  pool_.ParallelFor(static_cast<int>(pages.size()) * blocks, [&](int chunk, int /*thread*/) {
    const KvSealOp& op = pages[static_cast<size_t>(chunk / blocks)];
    const int32_t block = chunk % blocks;
    const auto tensor = static_cast<KvTensor>(block / heads % 2);
    if (tensor == KvTensor::kKey ? op.keys : op.values) {
      SealBlock(op, block / heads / 2, tensor, block % heads);
    }
  });
  return absl::OkStatus();
}

}  // namespace asymserve
