#include "engine/model/ggml_type.h"

#include <array>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

// By GGUF's number; empty: never assigned, or withdrawn.
constexpr std::array<const char*, 40> kNames = {
    "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
    "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
    "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4",
};

}  // namespace

absl::StatusOr<DType> DTypeFromGgml(uint32_t type, const std::string& what) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4K;
    case 13:
      return DType::kQ5K;
    case 14:
      return DType::kQ6K;
    case 30:
      return DType::kBF16;
    default:
      break;
  }
  const std::string name =
      type < kNames.size() && kNames[type][0] != '\0' ? kNames[type] : "unknown to us";
  return absl::UnimplementedError(
      absl::StrCat(what, " has type ", type, " (", name,
                   "), supported are F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q4_K Q5_K Q6_K"));
}

}  // namespace asymserve
