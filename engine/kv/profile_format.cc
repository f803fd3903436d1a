#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/atomic_file.h"
#include "engine/base/byte_reader.h"
#include "engine/base/float16.h"
#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/kv/item_name.h"
#include "engine/kv/plane_inverse.h"
#include "engine/kv/profile.h"
#include "engine/kv/profile_limits.h"

namespace asymserve {
namespace {

constexpr std::string_view kMagic = "ASYMKVPF";
constexpr uint32_t kVersion = 1;
constexpr size_t kSizeOffset = 12;  // of the u64 with the bytes of the whole file
constexpr size_t kDigestBytes = sizeof(Sha256Digest);

absl::Status Bad(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("profile: ", why));
}

// ---- Writing ----------------------------------------------------------------------------------

class ProfileWriter {
 public:
  absl::StatusOr<std::string> Run(const KvProfile& profile) {
    bytes_ = kMagic;
    Number(kVersion);
    Number(uint64_t{0});
    for (const int32_t size : {profile.shape.layers, profile.shape.kv_heads,
                               profile.shape.head_size, profile.frame_tokens}) {
      Number(size);
    }
    Bytes(profile.model_digest);
    Text(profile.description);
    for (size_t i = 0; i < profile.codes.size(); ++i) {
      const absl::Status status = Code(profile.codes[i]);
      if (!status.ok()) return Annotate(status, "profile: " + KvItemName(profile.shape, i));
    }
    Number(static_cast<uint32_t>(profile.tiers.size()));
    for (const KvProfileTier& tier : profile.tiers) Tier(tier);
    const uint64_t size = bytes_.size() + kDigestBytes;
    std::memcpy(bytes_.data() + kSizeOffset, &size, sizeof(size));
    Bytes(Sha256Of(std::as_bytes(std::span(bytes_))));
    return std::move(bytes_);
  }

 private:
  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }
  template <typename Container>
  void Bytes(const Container& bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void Text(std::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }
  absl::Status Halves(const std::vector<float>& values, const char* what) {
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = FloatToHalf(values[i]);
      if (HalfToFloat(half) != values[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat("value ", i, " of ", what, " is not a number of fp16: ", values[i]));
      }
      Number(half);
    }
    return absl::OkStatus();
  }

  absl::Status Code(const PlaneCode& code) {
    Number(static_cast<uint32_t>(code.planes()));
    if (code.planes() == 0) return absl::OkStatus();
    ASYMSERVE_RETURN_IF_ERROR(Halves(code.encode, "encode"));
    ASYMSERVE_RETURN_IF_ERROR(Halves(code.mean, "mean"));
    Bytes(code.subvector);
    return Halves(code.codebooks, "codebooks");
  }

  void Tier(const KvProfileTier& tier) {
    Text(tier.name);
    Number(tier.sink_pages);
    Number(tier.recent_pages);
    Number(tier.fresh_pages);
    for (const KvItem& item : tier.items) {
      Number(static_cast<uint8_t>(item.codec));
      Number(item.bits);
      Number(item.base_planes);
      Number(item.fresh_planes);
    }
    Number(static_cast<uint32_t>(tier.losses.size()));
    for (const KvLoss& loss : tier.losses) {
      Text(loss.text);
      Number(loss.tokens);
      Number(loss.mean_kl);
      Number(loss.copy_loss);
    }
  }

  std::string bytes_;
};

// ---- Reading ----------------------------------------------------------------------------------

class ProfileParser {
 public:
  explicit ProfileParser(std::span<const std::byte> bytes) : file_(bytes), reader_(bytes) {}

  absl::StatusOr<KvProfile> Run() {
    ASYMSERVE_RETURN_IF_ERROR(Envelope());
    ASYMSERVE_RETURN_IF_ERROR(Header());
    ASYMSERVE_RETURN_IF_ERROR(Codes());
    ASYMSERVE_RETURN_IF_ERROR(Tiers());
    if (reader_.remaining() > 0) {
      return Bad(absl::StrCat(reader_.remaining(), " bytes after its last tier"));
    }
    ASYMSERVE_RETURN_IF_ERROR(CheckProfile(profile_));
    return std::move(profile_);
  }

 private:
  absl::Status Truncated(const std::string& what) const {
    return Bad(absl::StrCat("ends within ", what, " at byte ", reader_.offset(), ", ",
                            reader_.remaining(), " bytes left"));
  }

  /// Magic, version, size and digest; what is left to read ends before the digest.
  absl::Status Envelope() {
    std::span<const std::byte> magic;
    uint32_t version = 0;
    uint64_t size = 0;
    if (!reader_.Take(kMagic.size(), magic) ||
        std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
      return Bad("does not begin with ASYMKVPF");
    }
    ASYMSERVE_RETURN_IF_ERROR(Number(version, "the version"));
    if (version != kVersion) {
      return absl::UnimplementedError(
          absl::StrCat("profile: version ", version, ", this program reads version ", kVersion));
    }
    ASYMSERVE_RETURN_IF_ERROR(Number(size, "the size"));
    if (size != file_.size() || reader_.remaining() < kDigestBytes) {
      return Bad(absl::StrCat(file_.size(), " bytes, its header says ", size));
    }
    const auto content = file_.first(file_.size() - kDigestBytes);
    const Sha256Digest digest = Sha256Of(content);
    if (std::memcmp(digest.data(), file_.data() + content.size(), kDigestBytes) != 0) {
      return Bad("is damaged: the digest at its end is not that of its bytes");
    }
    const size_t offset = reader_.offset();
    reader_ = ByteReader(content);
    return reader_.Skip(offset) ? absl::OkStatus() : Truncated("the header");
  }

  template <typename T>
  absl::Status Number(T& value, const std::string& what) {
    return reader_.Read(value) ? absl::OkStatus() : Truncated(what);
  }
  absl::Status Count(uint32_t& count, uint32_t most, const std::string& what) {
    ASYMSERVE_RETURN_IF_ERROR(Number(count, "the number of " + what));
    if (count <= most) return absl::OkStatus();
    return Bad(absl::StrCat(count, " ", what, ", at most ", most));
  }
  absl::Status Text(std::string& text, uint32_t most, const std::string& what) {
    uint32_t length = 0;
    std::span<const std::byte> bytes;
    ASYMSERVE_RETURN_IF_ERROR(Count(length, most, "bytes of " + what));
    if (!reader_.Take(length, bytes)) return Truncated(what);
    text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  }
  absl::Status Halves(std::vector<float>& values, size_t count, const std::string& what) {
    constexpr uint16_t kNotFinite = 0x7C00;
    std::span<const std::byte> bytes;
    if (!reader_.Take(uint64_t{2} * count, bytes)) return Truncated(what);
    values.resize(count);
    for (size_t i = 0; i < count; ++i) {
      uint16_t half;
      std::memcpy(&half, bytes.data() + 2 * i, sizeof(half));
      if ((half & kNotFinite) == kNotFinite) {
        return Bad(absl::StrCat(what, ": value ", i, " is NaN or infinite"));
      }
      values[i] = HalfToFloat(half);
    }
    return absl::OkStatus();
  }

  absl::Status Header() {
    KvShape& shape = profile_.shape;
    for (int32_t* size : {&shape.layers, &shape.kv_heads, &shape.head_size}) {
      ASYMSERVE_RETURN_IF_ERROR(Number(*size, "the shape"));
    }
    ASYMSERVE_RETURN_IF_ERROR(CheckProfileShape(shape));
    ASYMSERVE_RETURN_IF_ERROR(Number(profile_.frame_tokens, "the frame"));
    ASYMSERVE_RETURN_IF_ERROR(Number(profile_.model_digest, "the model's digest"));
    return Text(profile_.description, kMaxDescriptionBytes, "the description");
  }

  absl::Status Codes() {
    const size_t items = KvItemCount(profile_.shape);
    // So that a short file cannot ask for many items.
    if (reader_.remaining() / sizeof(uint32_t) < items) return Truncated("the codes");
    profile_.codes.resize(items);
    for (size_t i = 0; i < items; ++i) {
      ASYMSERVE_RETURN_IF_ERROR(Code(profile_.codes[i], KvItemName(profile_.shape, i)));
    }
    return absl::OkStatus();
  }

  absl::Status Code(PlaneCode& code, const std::string& name) {
    uint32_t planes = 0;
    ASYMSERVE_RETURN_IF_ERROR(Number(planes, name));
    const absl::Status count = CheckPlaneCount(planes);
    if (!count.ok()) return Annotate(count, "profile: " + name);
    if (planes == 0) return absl::OkStatus();
    const auto size = static_cast<size_t>(profile_.shape.head_size);
    std::span<const std::byte> subvectors;
    code.head_size = profile_.shape.head_size;
    ASYMSERVE_RETURN_IF_ERROR(Halves(code.encode, size * size, name + ": encode"));
    ASYMSERVE_RETURN_IF_ERROR(Halves(code.mean, size, name + ": mean"));
    if (!reader_.Take(planes, subvectors)) return Truncated(name);
    for (const std::byte subvector : subvectors) {
      code.subvector.push_back(static_cast<uint8_t>(subvector));
    }
    ASYMSERVE_RETURN_IF_ERROR(Halves(code.codebooks, size_t{64} * planes, name + ": codebooks"));
    auto decode = InverseOf(code.encode, code.head_size);
    if (!decode.ok()) return Annotate(decode.status(), "profile: " + name + ": encode");
    code.decode = *std::move(decode);
    return absl::OkStatus();
  }

  absl::Status Tiers() {
    uint32_t tiers = 0;
    ASYMSERVE_RETURN_IF_ERROR(Count(tiers, kMaxTiers, "tiers"));
    profile_.tiers.resize(tiers);
    for (KvProfileTier& tier : profile_.tiers) ASYMSERVE_RETURN_IF_ERROR(Tier(tier));
    return absl::OkStatus();
  }

  absl::Status Tier(KvProfileTier& tier) {
    ASYMSERVE_RETURN_IF_ERROR(Text(tier.name, kMaxTierNameBytes, "the name of a tier"));
    for (int32_t* pages : {&tier.sink_pages, &tier.recent_pages, &tier.fresh_pages}) {
      ASYMSERVE_RETURN_IF_ERROR(Number(*pages, "a tier"));
    }
    const size_t items = profile_.codes.size();
    std::span<const std::byte> bytes;
    if (!reader_.Take(uint64_t{4} * items, bytes)) return Truncated("the items of a tier");
    tier.items.resize(items);
    for (size_t i = 0; i < items; ++i) {
      const auto at = [&](size_t field) { return static_cast<uint8_t>(bytes[4 * i + field]); };
      tier.items[i] = {static_cast<KvCodec>(at(0)), at(1), at(2), at(3)};
    }
    uint32_t losses = 0;
    ASYMSERVE_RETURN_IF_ERROR(Count(losses, kMaxLosses, "losses"));
    tier.losses.resize(losses);
    for (KvLoss& loss : tier.losses) {
      ASYMSERVE_RETURN_IF_ERROR(Text(loss.text, kMaxLossTextBytes, "the name of a text"));
      ASYMSERVE_RETURN_IF_ERROR(Number(loss.tokens, "a loss"));
      ASYMSERVE_RETURN_IF_ERROR(Number(loss.mean_kl, "a loss"));
      ASYMSERVE_RETURN_IF_ERROR(Number(loss.copy_loss, "a loss"));
    }
    return absl::OkStatus();
  }

  std::span<const std::byte> file_;
  ByteReader reader_;
  KvProfile profile_;
};

}  // namespace

absl::StatusOr<std::string> SerializeProfile(const KvProfile& profile) {
  ASYMSERVE_RETURN_IF_ERROR(CheckProfile(profile));
  return ProfileWriter().Run(profile);
}

absl::StatusOr<KvProfile> ParseProfile(std::span<const std::byte> bytes) {
  return ProfileParser(bytes).Run();
}

absl::StatusOr<KvProfile> ReadProfile(const std::string& path) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  auto profile = ParseProfile(file.bytes());
  if (!profile.ok()) return Annotate(profile.status(), path);
  return profile;
}

absl::Status WriteProfile(const KvProfile& profile, const std::string& path) {
  const absl::StatusOr<std::string> bytes = SerializeProfile(profile);
  if (!bytes.ok()) return Annotate(bytes.status(), path);
  return WriteFileAtomically(path, std::as_bytes(std::span(*bytes)));
}

}  // namespace asymserve
