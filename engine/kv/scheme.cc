#include "engine/kv/scheme.h"

#include <array>
#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"

#include "engine/kv/codec.h"

namespace asymserve {
namespace {

absl::Status BadName(std::string_view name, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("KV scheme '", std::string(name), "': ", why));
}

/// "<a>/<b>" with numbers.
std::optional<std::array<int32_t, 2>> Pair(std::string_view text) {
  std::array<int32_t, 2> pair{};
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, pair[0]);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '/') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, pair[1]);
  if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  return pair;
}

/// KIVI inside pages: keys in blocks of 128 tokens, values once they are 128 tokens old, rounded up
/// to pages (R = 128 of the paper; its value window is 128 there, 128 to 191 here).
KvScheme Kivi(std::string_view name) {
  KvScheme scheme;
  scheme.name = std::string(name);
  scheme.key_window = {.recent_pages = 0, .block_pages = 2};
  scheme.value_window = {.recent_pages = 2, .block_pages = 1};
  return scheme;
}

/// Items of one scalar codec; bits(tensor, layer).
template <typename Bits>
void FillScalar(KvCodec codec, const KvShape& shape, KvScheme& scheme, Bits bits) {
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
      const KvItem item = {.codec = codec, .bits = static_cast<uint8_t>(bits(tensor, layer))};
      scheme.items.insert(scheme.items.end(), static_cast<size_t>(shape.kv_heads), item);
    }
  }
}

absl::StatusOr<KvScheme> AsymKv(std::string_view name, std::string_view arguments,
                                const KvShape& shape) {
  const auto layers = Pair(arguments);
  if (!layers) return BadName(name, "expected asymkv-<lk>/<lv>, two numbers of layers");
  for (const int32_t count : *layers) {
    if (count < 0 || count > shape.layers) {
      return BadName(name, absl::StrCat(count, " layers of 2 bits; the model has ", shape.layers));
    }
  }
  KvScheme scheme = Kivi(name);
  FillScalar(KvCodec::kMinMax, shape, scheme, [&](KvTensor tensor, int32_t layer) {
    return layer < (*layers)[static_cast<size_t>(tensor)] ? 2 : 1;
  });
  return scheme;
}

absl::StatusOr<KvScheme> Fit(std::string_view name, std::string_view arguments,
                             const KvShape& shape) {
  const auto bits = Pair(arguments);
  const auto good = [](int32_t b) { return b == 1 || b == 2 || b == 4; };
  if (!bits || !good((*bits)[0]) || !good((*bits)[1])) {
    return BadName(name, "expected fit-<k>/<v> with 1, 2 or 4 bits for keys and values");
  }
  KvScheme scheme;
  scheme.name = std::string(name);
  scheme.sink_pages = 1;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  FillScalar(KvCodec::kFitted, shape, scheme,
             [&](KvTensor tensor, int32_t) { return (*bits)[static_cast<size_t>(tensor)]; });
  return scheme;
}

absl::Status CheckItem(const KvItem& item, size_t index) {
  const auto bad = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("KV item ", index, ": ", why));
  };
  switch (item.codec) {
    case KvCodec::kHalf:
    case KvCodec::kInt8:
      return absl::OkStatus();
    case KvCodec::kMinMax:
    case KvCodec::kFitted:
      if (item.bits != 1 && item.bits != 2 && item.bits != 4) {
        return bad(absl::StrCat(int{item.bits}, " bits; must be 1, 2 or 4"));
      }
      return absl::OkStatus();
    case KvCodec::kPlanes:
      if (item.base_planes < 2 || item.base_planes % 2 != 0 || item.fresh_planes % 2 != 0 ||
          item.fresh_planes < item.base_planes) {
        return bad(absl::StrCat(int{item.base_planes}, " base and ", int{item.fresh_planes},
                                " fresh planes; must be even, at least 2, and not fewer fresh"));
      }
      return absl::OkStatus();
  }
  return bad("unknown codec");
}

}  // namespace

absl::StatusOr<KvScheme> NamedKvScheme(std::string_view name, const KvShape& shape) {
  KvScheme scheme;
  scheme.name = std::string(name);
  if (name == "exact") return scheme;
  if (name == "int8") {
    scheme.near = KvCodec::kInt8;
    return scheme;
  }
  if (name == "kivi-2" || name == "kivi-4") {
    scheme = Kivi(name);
    const int32_t bits = name.back() - '0';
    FillScalar(KvCodec::kMinMax, shape, scheme, [&](KvTensor, int32_t) { return bits; });
    return scheme;
  }
  constexpr std::string_view kAsymKv = "asymkv-";
  constexpr std::string_view kFit = "fit-";
  if (name.substr(0, kAsymKv.size()) == kAsymKv) {
    return AsymKv(name, name.substr(kAsymKv.size()), shape);
  }
  if (name.substr(0, kFit.size()) == kFit) return Fit(name, name.substr(kFit.size()), shape);
  return absl::NotFoundError(absl::StrCat(
      "KV scheme '", std::string(name),
      "': unknown; there are exact, int8, kivi-2, kivi-4, asymkv-<lk>/<lv>, fit-<k>/<v>, and "
      "the tiers of a profile"));
}

absl::Status CheckKvScheme(const KvScheme& scheme, const KvShape& shape) {
  const auto bad = [&](const std::string& why) { return BadName(scheme.name, why); };
  if (scheme.page_tokens != kKvPageTokens) {
    return bad(absl::StrCat("pages of ", scheme.page_tokens, " tokens; only ", kKvPageTokens,
                            " are supported"));
  }
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_size < 8 ||
      shape.head_size > kMaxKvHeadSize || shape.head_size % 8 != 0) {
    return bad(absl::StrCat(shape.layers, " layers, ", shape.kv_heads, " KV heads of ",
                            shape.head_size, "; head sizes are multiples of 8 up to ",
                            kMaxKvHeadSize));
  }
  if (scheme.near != KvCodec::kHalf && scheme.near != KvCodec::kInt8) {
    return bad("near pages are 16 bit or int8");
  }
  if (scheme.chunk_tokens < scheme.page_tokens || scheme.chunk_tokens % scheme.page_tokens != 0 ||
      scheme.frame_tokens < scheme.page_tokens || scheme.frame_tokens % scheme.page_tokens != 0) {
    return bad("chunk and frame must be multiples of the page");
  }
  for (const KvWindow& window : {scheme.key_window, scheme.value_window}) {
    if (window.recent_pages < 0 || window.block_pages < 1 || scheme.sink_pages < 0 ||
        scheme.fresh_pages < 0) {
      return bad("a window is negative");
    }
  }
  if (scheme.fresh_pages > 0 && scheme.key_window != scheme.value_window) {
    return bad("fresh pages need keys and values sealed together");
  }
  const size_t items =
      size_t{2} * static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.kv_heads);
  if (!scheme.items.empty() && scheme.items.size() != items) {
    return bad(absl::StrCat(scheme.items.size(), " items, the model has ", items));
  }
  for (size_t i = 0; i < scheme.items.size(); ++i) {
    const absl::Status status = CheckItem(scheme.items[i], i);
    if (!status.ok()) return bad(std::string(status.message()));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
