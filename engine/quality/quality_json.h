#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quality/quality_report.h"

namespace asymserve {

/// One evaluation of a model.
struct QualityResult {
  std::string model;  // name of its file, without folders
  std::vector<QualityRow> rows;
};

/// {"model","rows":[{"scheme","text","tokens","from","kl_mean","kl_p99","kl_p999","top1","ppl",
/// "ppl_ratio","bits_sealed","bits_effective":{"1024":...},"copy_nll","copy_nll_exact"}]}; the copy
/// fields are null where the copy test was not asked for. KL and NLL in nats, top1 a fraction.
/// Rows for which text was generated have
///   "free_running":{"prompts","prompt_tokens","tokens","first_divergence_mean",
///   "first_divergence_median","equal_tokens","answers":[{"test","tokens","asked","exact","score"}],
///   "copy":[{"tokens","nll","nll_exact"}]}
/// besides, with a score of null where exact itself answers too little to judge by.
std::string QualityJson(const QualityResult& result);

/// The inverse but for "free_running", which it ignores. InvalidArgument names `what`, the row and
/// the field.
absl::StatusOr<QualityResult> ParseQualityJson(std::string_view json, std::string_view what);
/// Errors name the file.
absl::StatusOr<QualityResult> ReadQualityJson(const std::string& path);

}  // namespace asymserve
