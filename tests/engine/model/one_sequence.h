#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/base/status.h"
#include "engine/model/llama.h"
#include "tests/support/kv_setup.h"

namespace asymserve::testing {

/// A model on the CPU backend that runs one sequence, its pages in order.
class OneSequence {
 public:
  static constexpr int32_t kPages = 4;

  /// Opens a model file or folder; a failure is reported, and then model() is null.
  explicit OneSequence(const std::string& path) {
    const absl::Status status = Load(path);
    EXPECT_TRUE(status.ok()) << status;
  }

  const LlamaModel* model() const { return model_.get(); }

  /// Runs tokens at the next positions; the logits of the last.
  std::vector<float> Run(const std::vector<int32_t>& tokens) {
    std::vector<int32_t> positions;
    for (size_t i = 0; i < tokens.size(); ++i) positions.push_back(next_++);
    const std::vector<int32_t> token_offset = {0, static_cast<int32_t>(tokens.size())};
    std::vector<KvPage> pages;
    for (int32_t page = 0; page < kPages; ++page) pages.push_back({.near = PageId{page}});
    const std::vector<int32_t> page_offset = {0, kPages};
    const std::vector<int32_t> rows = {static_cast<int32_t>(tokens.size()) - 1};
    const auto logits =
        model_->Forward({tokens, {positions, token_offset, pages, page_offset}, rows});
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return {};
    const float* values = logits->As<float>();
    return {values, values + model_->vocabulary()};
  }

 private:
  absl::Status Load(const std::string& path) {
    ASYMSERVE_ASSIGN_OR_RETURN(backend_, MakeCpuBackend({.threads = 1}));
    ASYMSERVE_ASSIGN_OR_RETURN(const auto file, OpenWeightFile(path));
    const AttentionShape& attention = file->config().attention;
    const KvShape shape{file->config().layers, attention.kv_heads, attention.head_size};
    ASYMSERVE_RETURN_IF_ERROR(backend_->KvInit(ExactKvSetup(shape, kPages)));
    ASYMSERVE_ASSIGN_OR_RETURN(model_,
                               LlamaModel::Load(*file, *backend_, {.max_positions = 64 * kPages}));
    return absl::OkStatus();
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
  int32_t next_ = 0;
};

}  // namespace asymserve::testing
