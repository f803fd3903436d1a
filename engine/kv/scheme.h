#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/kv/item.h"

namespace asymserve {

/// What the KV cache of a model looks like: everything that its byte layout and a plan depend on.
/// L layers, G KV heads, D channels per head.
struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;

  friend bool operator==(const KvShape&, const KvShape&) = default;
};

/// How the pages of a sequence are kept. It asks for one of the first two.
enum class KvPrecision : uint8_t {
  kScheme,     // as the scheme says
  kExact,      // 16 bit throughout, never sealed
  kUnrefined,  // kScheme, and sealed pages are aged at once: under memory pressure, where allowed
};

/// Which complete pages of a tensor are still near: the newest `recent_pages`, and those after the
/// last multiple of `block_pages`.
struct KvWindow {
  int32_t recent_pages = 0;
  int32_t block_pages = 1;

  friend bool operator==(const KvWindow&, const KvWindow&) = default;
};

/// How keys and values are stored: a description that layout, plan, kernels and tests share. A page
/// is written `near` (16 bit or int8), is sealed when it is complete and leaves the window, and is
/// fresh (base and refinement planes) before it is aged (base only). Which it is depends on
/// positions only (kv/page_tier.h).
struct KvScheme {
  std::string name = "exact";
  int32_t page_tokens = 64;       // tokens per page, in all layers and heads
  int32_t chunk_tokens = 256;     // prefill runs in chunks of this many tokens at fixed positions
  KvCodec near = KvCodec::kHalf;  // kHalf or kInt8
  int32_t sink_pages = 0;         // the first pages, near for ever
  KvWindow key_window = {};
  KvWindow value_window = {};
  int32_t fresh_pages = 0;         // sealed pages that keep their refinement; needs equal windows
  int32_t frame_tokens = 512;      // kPlanes: keys are rotated back to the start of their frame
  std::vector<KvItem> items = {};  // [L][2][G], keys before values; empty: pages are never sealed

  bool seals() const { return !items.empty(); }
  /// Whether pages of sequences of that precision are sealed.
  bool seals(KvPrecision precision) const { return seals() && precision != KvPrecision::kExact; }
  /// Near-sized records of a page that is not sealed (kv/page.h).
  int32_t near_records(KvPrecision precision) const {
    return precision == KvPrecision::kExact && near == KvCodec::kInt8 ? 2 : 1;
  }
  const KvItem& item(const KvShape& shape, int32_t layer, KvTensor tensor, int32_t head) const {
    return items[static_cast<size_t>((2 * layer + static_cast<int32_t>(tensor)) * shape.kv_heads +
                                     head)];
  }
};

/// The scheme of that name: `exact`, `int8` (near pages only), `kivi-2`, `kivi-4`,
/// `asymkv-<lk>/<lv>` (keys of the first lk layers and values of the first lv in 2 bits, the others
/// in 1; arXiv 2410.13212), `fit-<k>/<v>` (bits 1, 2 or 4). InvalidArgument says what is wrong with
/// such a name, NotFound lists them when it is none. Learned schemes come from a profile
/// (kv/profile.h).
absl::StatusOr<KvScheme> NamedKvScheme(std::string_view name, const KvShape& shape);

/// InvalidArgument when a field is out of range or the items do not fit the shape.
absl::Status CheckKvScheme(const KvScheme& scheme, const KvShape& shape);

}  // namespace asymserve
