#include "engine/model/hf_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/model/hf_config.h"
#include "engine/model/hf_names.h"
#include "engine/model/hf_tokenizer.h"
#include "engine/model/json_document.h"
#include "engine/model/mapped_weight_file.h"
#include "engine/model/printable.h"
#include "engine/model/safetensors.h"
#include "engine/model/small_file.h"
#include "engine/model/weight_table.h"

namespace asymserve {
namespace {

constexpr size_t kMaxShards = 4096;

bool IsPlainFileName(std::string_view name) {
  return name.ends_with(".safetensors") && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && !name.starts_with('.');
}

/// The tensors that each file holds, by file name: what the index says, or nothing known about the
/// only file.
using Shards = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<Shards> ReadIndex(const std::string& path) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadSmallFile(path));
  if (!text) return Shards{{"model.safetensors", {}}};
  ASYMSERVE_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(*text, path));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": key 'weight_map' is missing or no object with tensors"));
  }
  Shards shards;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Printable(tensor),
                                                     " is not mapped to a *.safetensors file of "
                                                     "this folder"));
    }
    shards[file.get_ref<const std::string&>()].push_back(tensor);
  }
  if (shards.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", shards.size(), " files, at most ", kMaxShards));
  }
  return shards;
}

absl::Status AddTensor(const SafetensorsTensor& tensor, const ModelConfig& config,
                       WeightTable& table) {
  // Rotary tables are computed; a tied model's copy of the embedding table is not read.
  if (tensor.name.ends_with(".rotary_emb.inv_freq")) return absl::OkStatus();
  if (config.tied_output && tensor.name == "lm_head.weight") return absl::OkStatus();
  const std::string what = "tensor " + Printable(tensor.name);
  const std::optional<std::string> name = GgufNameOfHf(tensor.name);
  if (!name) {
    return absl::UnimplementedError(absl::StrCat(what, " has no place in a ",
                                                 Printable(config.architecture),
                                                 " model: computing without it would be wrong"));
  }
  if (!tensor.dtype) {
    return absl::UnimplementedError(
        absl::StrCat(what, " has dtype ", tensor.dtype_name, ", supported are F32 F16 BF16"));
  }
  if (tensor.shape.empty() || tensor.shape.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has ", tensor.shape.size(), " dimensions, need 1 or 2"));
  }
  return table.Add(*name, {.data = tensor.data.data(),
                           .dtype = *tensor.dtype,
                           .rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1,
                           .cols = tensor.shape.back()});
}

absl::Status AddShard(const MappedFile& file, const std::vector<std::string>& indexed,
                      const ModelConfig& config, WeightTable& table) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto tensors, ParseSafetensors(file.bytes()));
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const SafetensorsTensor& tensor : tensors) {
    ASYMSERVE_RETURN_IF_ERROR(AddTensor(tensor, config, table));
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : indexed) {
    if (!std::binary_search(names.begin(), names.end(), std::string_view(name))) {
      return absl::NotFoundError(
          absl::StrCat("tensor ", Printable(name), " is missing, the index says it is here"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ReadConfig(const std::string& path, nlohmann::json& document) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadSmallFile(path));
  if (!text) return absl::NotFoundError(absl::StrCat(path, " is missing"));
  ASYMSERVE_ASSIGN_OR_RETURN(document, ParseJsonObject(*text, path));
  auto config = ModelConfigFromHf(document);
  if (!config.ok()) return Annotate(config.status(), path);
  return config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightFile>> OpenHfFolder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path) / "";
  nlohmann::json config_json;
  ASYMSERVE_ASSIGN_OR_RETURN(ModelConfig config, ReadConfig(folder / "config.json", config_json));
  config.name = folder.parent_path().filename().string();

  ASYMSERVE_ASSIGN_OR_RETURN(const Shards shards,
                             ReadIndex(folder / "model.safetensors.index.json"));
  std::vector<MappedFile> files;
  WeightTable table;
  for (const auto& [name, indexed] : shards) {
    ASYMSERVE_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(folder / name));
    ASYMSERVE_RETURN_IF_ERROR(Annotate(AddShard(file, indexed, config, table), file.path()));
    files.push_back(std::move(file));
  }
  ASYMSERVE_RETURN_IF_ERROR(Annotate(table.Verify(config), path));
  ASYMSERVE_ASSIGN_OR_RETURN(TokenizerSpec spec,
                             ReadHfTokenizer(folder.string(), config_json, config.vocabulary));
  return std::make_unique<MappedWeightFile>(std::move(files), std::move(table), std::move(config),
                                            std::move(spec));
}

}  // namespace asymserve
