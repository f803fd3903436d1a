#include "engine/model/gguf_file.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/model/gguf_config.h"
#include "engine/model/gguf_tokenizer.h"
#include "engine/model/mapped_weight_file.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

/// Tables that the configuration already holds, or that can be computed from it.
bool IsDerived(std::string_view name) {
  return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight") ||
         name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

absl::StatusOr<WeightTable> WeightTableFromGguf(const Gguf& gguf, const ModelConfig& config) {
  WeightTable table;
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (IsDerived(tensor.name)) continue;
    if (tensor.extents[2] != 1 || tensor.extents[3] != 1) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(tensor.name), " has ",
                                                     int{tensor.rank}, " dimensions, need 1 or 2"));
    }
    ASYMSERVE_RETURN_IF_ERROR(table.Add(tensor.name, {.data = tensor.data.data(),
                                                      .dtype = tensor.dtype,
                                                      .rows = tensor.extents[1],
                                                      .cols = tensor.extents[0]}));
  }
  ASYMSERVE_RETURN_IF_ERROR(table.Verify(config));
  return table;
}

absl::StatusOr<std::unique_ptr<WeightFile>> OpenGgufFile(MappedFile file) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Gguf gguf, Gguf::Parse(file.bytes()));
  ASYMSERVE_ASSIGN_OR_RETURN(ModelConfig config, ModelConfigFromGguf(gguf));
  ASYMSERVE_ASSIGN_OR_RETURN(WeightTable table, WeightTableFromGguf(gguf, config));
  ASYMSERVE_ASSIGN_OR_RETURN(TokenizerSpec tokenizer_spec, TokenizerSpecFromGguf(gguf));
  std::vector<MappedFile> files;
  files.push_back(std::move(file));
  return std::make_unique<MappedWeightFile>(std::move(files), std::move(table), std::move(config),
                                            std::move(tokenizer_spec));
}

}  // namespace asymserve
