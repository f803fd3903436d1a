#include "server/model_shapes.h"

#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "config/key_distance.h"
#include "config/scalar.h"
#include "config/yaml_entries.h"
#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/runtime/model_shape_file.h"

namespace asymserve {
namespace {

struct Values {
  std::string name;
  std::string weight_type;
  int64_t weight_bytes = 0;
  ShapeDescription shape;
};

struct IntegerKey {
  std::string_view key;
  int32_t ShapeDescription::*member;
};

constexpr IntegerKey kIntegers[] = {
    {"layers", &ShapeDescription::layers},
    {"width", &ShapeDescription::width},
    {"feed_forward_width", &ShapeDescription::feed_forward_width},
    {"heads", &ShapeDescription::heads},
    {"kv_heads", &ShapeDescription::kv_heads},
    {"head_size", &ShapeDescription::head_size},
    {"vocabulary", &ShapeDescription::vocabulary},
    {"context_tokens", &ShapeDescription::context_tokens},
};

absl::Status Expected(const YamlEntry& entry, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat(entry.key, ": expected ", what, ", got ", Quoted(entry.text)));
}

absl::Status UnknownKey(const YamlEntry& entry) {
  std::vector<std::string_view> known = {"name", "tied_output", "weight_type", "weight_bytes"};
  for (const IntegerKey& integer : kIntegers) known.push_back(integer.key);
  const std::string_view nearest = NearestKey(entry.key, known);
  return absl::InvalidArgumentError(absl::StrCat(
      Printable(entry.key), ": unknown key",
      nearest.empty() ? "" : absl::StrCat(", did you mean ", std::string(nearest), "?")));
}

absl::Status Assign(const YamlEntry& entry, Values& values) {
  const bool scalar =
      entry.kind == YamlEntry::Kind::kPlain || entry.kind == YamlEntry::Kind::kQuoted;
  for (const IntegerKey& integer : kIntegers) {
    if (integer.key != entry.key) continue;
    const std::optional<int32_t> value = scalar ? ParseInt32(entry.text) : std::nullopt;
    if (!value.has_value() || *value < 1) {
      return Expected(entry, absl::StrCat("1 to ", std::numeric_limits<int32_t>::max()));
    }
    values.shape.*integer.member = *value;
    return absl::OkStatus();
  }
  if (entry.key == "name" || entry.key == "weight_type") {
    if (!scalar || entry.text.empty()) return Expected(entry, "text");
    (entry.key == "name" ? values.name : values.weight_type) = entry.text;
    return absl::OkStatus();
  }
  if (entry.key == "tied_output") {
    const std::optional<bool> value = scalar ? ParseBool(entry.text) : std::nullopt;
    if (!value.has_value()) return Expected(entry, "true or false");
    values.shape.tied_output = *value;
    return absl::OkStatus();
  }
  if (entry.key == "weight_bytes") {
    constexpr int64_t kMost = int64_t{64} << 40;
    const std::optional<int64_t> value = scalar ? ParseSize(entry.text) : std::nullopt;
    if (!value.has_value() || *value < 1 || *value > kMost) {
      return Expected(entry, "a size from 1 to 64TiB");
    }
    values.weight_bytes = *value;
    return absl::OkStatus();
  }
  return UnknownKey(entry);
}

absl::Status CheckComplete(const Values& values) {
  for (const IntegerKey& integer : kIntegers) {
    if (values.shape.*integer.member > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(std::string(integer.key), ": is required"));
  }
  if (values.weight_type.empty() == (values.weight_bytes == 0)) {
    return absl::InvalidArgumentError("one of weight_type and weight_bytes is required");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelShapes> ParseModelShapes(std::string_view text, const std::string& file) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<YamlEntry> entries, ReadYamlEntries(text, file));
  Values values;
  for (const YamlEntry& entry : entries) {
    ASYMSERVE_RETURN_IF_ERROR(Annotate(Assign(entry, values), absl::StrCat(file, ":", entry.line)));
  }
  ASYMSERVE_RETURN_IF_ERROR(Annotate(CheckComplete(values), file));
  ModelShapes shapes;
  shapes.name = values.name.empty() ? std::filesystem::path(file).stem().string() : values.name;
  shapes.weight_bytes = values.weight_bytes;
  values.shape.weight_type = values.weight_type.empty() ? "BF16" : values.weight_type;
  absl::StatusOr<std::unique_ptr<WeightFile>> shape_file = MakeModelShapeFile(values.shape);
  if (!shape_file.ok()) return Annotate(shape_file.status(), file);
  shapes.file = *std::move(shape_file);
  return shapes;
}

absl::StatusOr<ModelShapes> ReadModelShapes(const std::string& path) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  return ParseModelShapes({text, file.bytes().size()}, path);
}

}  // namespace asymserve
