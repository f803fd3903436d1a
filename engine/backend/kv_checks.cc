#include "engine/backend/kv_checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

bool IsPartition(std::span<const int32_t> offset, int64_t total) {
  return !offset.empty() && offset.front() == 0 && offset.back() == total &&
         std::is_sorted(offset.begin(), offset.end());
}

bool HasRecord(const ArenaCut& cut, KvRecord kind, PageId id) {
  return Index(id) >= 0 && Index(id) < cut.records(kind);
}

absl::Status CheckPage(const KvPage& page, const KvScheme& scheme, const ArenaCut& cut) {
  const bool near = page.key_tier == KvTier::kNear || page.value_tier == KvTier::kNear;
  const bool sealed = page.key_tier != KvTier::kNear || page.value_tier != KvTier::kNear;
  const bool fresh = page.key_tier == KvTier::kFresh || page.value_tier == KvTier::kFresh;
  const auto missing = [](const char* kind, PageId id, int32_t records) {
    return absl::InternalError(
        absl::StrCat(kind, " record ", Index(id), " of ", records, " in a KV page"));
  };
  if (near && !HasRecord(cut, KvRecord::kNear, page.near)) {
    return missing("near", page.near, cut.records(KvRecord::kNear));
  }
  if (page.exact && sealed) return absl::InternalError("an exact KV page is sealed");
  if (page.exact && scheme.near_records(KvPrecision::kExact) == 2 &&
      !HasRecord(cut, KvRecord::kNear, page.exact_values)) {
    return missing("exact value", page.exact_values, cut.records(KvRecord::kNear));
  }
  if (sealed && !HasRecord(cut, KvRecord::kBase, page.base)) {
    return missing("base", page.base, cut.records(KvRecord::kBase));
  }
  if (fresh && cut.records(KvRecord::kRefinement) > 0 &&
      !HasRecord(cut, KvRecord::kRefinement, page.refinement)) {
    return missing("refinement", page.refinement, cut.records(KvRecord::kRefinement));
  }
  return absl::OkStatus();
}

absl::Status CheckCode(const KvSetup& setup, size_t index) {
  const KvItem& item = setup.scheme.items[index];
  const auto size = static_cast<size_t>(setup.shape.head_size);
  if (setup.codes == nullptr || setup.codes->size() != setup.scheme.items.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV scheme '", setup.scheme.name, "' needs the learned codes of a profile"));
  }
  const PlaneCode& code = (*setup.codes)[index];
  const size_t planes = code.subvector.size();
  const bool fits = code.head_size == setup.shape.head_size && planes >= item.fresh_planes &&
                    code.codebooks.size() == planes * 64 && code.encode.size() == size * size &&
                    code.decode.size() == size * size && code.mean.size() == size &&
                    std::all_of(code.subvector.begin(), code.subvector.end(),
                                [&](uint8_t s) { return s < size / 4; });
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV item ", index, ": a code of ", planes, " planes for head size ", code.head_size,
        " does not fit ", int{item.fresh_planes}, " planes of head size ", size));
  }
  return absl::OkStatus();
}

}  // namespace

bool HasPlanes(const KvScheme& scheme) {
  return std::any_of(scheme.items.begin(), scheme.items.end(),
                     [](const KvItem& item) { return item.codec == KvCodec::kPlanes; });
}

absl::Status CheckPlaneCodes(const KvSetup& setup) {
  for (size_t i = 0; i < setup.scheme.items.size(); ++i) {
    if (setup.scheme.items[i].codec != KvCodec::kPlanes) continue;
    ASYMSERVE_RETURN_IF_ERROR(CheckCode(setup, i));
  }
  return absl::OkStatus();
}

absl::Status CheckKvStep(const KvStep& step, int32_t layer, int64_t tokens,
                         const KvArenaShape& arena) {
  if (arena.scheme == nullptr) return absl::InternalError("KvInit was not called");
  if (layer < 0 || layer >= arena.shape->layers) {
    return absl::InternalError(absl::StrCat("layer ", layer, " of ", arena.shape->layers));
  }
  if (static_cast<int64_t>(step.positions.size()) != tokens ||
      !IsPartition(step.token_offset, tokens) ||
      step.page_offset.size() != step.token_offset.size() ||
      !IsPartition(step.page_offset, static_cast<int64_t>(step.pages.size()))) {
    return absl::InternalError(absl::StrCat("step of ", tokens, " tokens with ",
                                            step.positions.size(), " positions, ",
                                            step.pages.size(), " pages and inconsistent offsets"));
  }
  for (size_t s = 0; s + 1 < step.token_offset.size(); ++s) {
    const int32_t pages = step.page_offset[s + 1] - step.page_offset[s];
    for (int32_t t = step.token_offset[s]; t < step.token_offset[s + 1]; ++t) {
      const int32_t position = step.positions[static_cast<size_t>(t)];
      if (position < 0 || position / kKvPageTokens >= pages) {
        return absl::InternalError(
            absl::StrCat("position ", position, " of sequence ", s, " with ", pages, " pages"));
      }
    }
  }
  for (size_t s = 0; s + 1 < step.page_offset.size(); ++s) {
    const std::span<const KvPage> pages =
        step.pages.subspan(static_cast<size_t>(step.page_offset[s]),
                           static_cast<size_t>(step.page_offset[s + 1] - step.page_offset[s]));
    for (const KvPage& page : pages) {
      ASYMSERVE_RETURN_IF_ERROR(CheckPage(page, *arena.scheme, *arena.cut));
      if (page.exact != pages.front().exact) {
        return absl::InternalError(absl::StrCat("sequence ", s, " has exact and other pages"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckKvWrite(const KvStep& step, TensorView qkv, const KvArenaShape& arena) {
  const int64_t kv_elements = int64_t{2} * arena.shape->kv_heads * arena.shape->head_size;
  if (qkv.row_elements() < kv_elements) {
    return absl::InternalError(absl::StrCat("KvWrite: rows of ", qkv.row_elements(),
                                            " elements, keys and values are ", kv_elements));
  }
  for (size_t s = 0; s + 1 < step.token_offset.size(); ++s) {
    for (int32_t t = step.token_offset[s]; t < step.token_offset[s + 1]; ++t) {
      const int32_t page = step.positions[static_cast<size_t>(t)] / kKvPageTokens;
      const KvPage& written = step.pages[static_cast<size_t>(step.page_offset[s] + page)];
      if (written.key_tier != KvTier::kNear || written.value_tier != KvTier::kNear) {
        return absl::InternalError(absl::StrCat("KvWrite: page ", page, " is sealed"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckKvSeal(std::span<const KvSealOp> pages, int64_t positions,
                         const KvArenaShape& arena) {
  if (arena.scheme == nullptr || !arena.scheme->seals()) {
    return absl::InternalError("KvSeal: the scheme never seals");
  }
  for (const KvSealOp& op : pages) {
    const bool refined = op.refinement != kNoPage;
    if (!HasRecord(*arena.cut, KvRecord::kNear, op.near) ||
        !HasRecord(*arena.cut, KvRecord::kBase, op.base) ||
        (refined && !HasRecord(*arena.cut, KvRecord::kRefinement, op.refinement)) || op.page < 0 ||
        (positions > 0 && int64_t{op.page} * kKvPageTokens >= positions)) {
      return absl::InternalError(absl::StrCat("KvSeal: page ", op.page, " with records ",
                                              Index(op.near), ", ", Index(op.base), ", ",
                                              Index(op.refinement)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAttention(const AttentionShape& shape, TensorView out, TensorView qkv,
                            const KvArenaShape& arena) {
  const KvShape& held = *arena.shape;
  const int64_t size = shape.head_size;
  if (shape.kv_heads != held.kv_heads || shape.head_size != held.head_size ||
      shape.heads < shape.kv_heads || shape.heads % shape.kv_heads != 0 ||
      qkv.row_elements() != (shape.heads + int64_t{2} * shape.kv_heads) * size ||
      out.rows() != qkv.rows() || out.row_elements() != shape.heads * size) {
    return absl::InternalError(absl::StrCat(
        "Attention: ", shape.heads, " heads, ", shape.kv_heads, " KV heads of ", size, ", q k v [",
        qkv.rows(), ", ", qkv.row_elements(), "], out [", out.rows(), ", ", out.row_elements(),
        "]; the arena has ", held.kv_heads, " KV heads of ", held.head_size));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
