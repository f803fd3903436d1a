#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/runtime_device.h"
#include "engine/base/check.h"
#include "engine/base/status.h"
#include "engine/kv/plane_inverse.h"
#include "engine/model/llama.h"
#include "engine/quality/pseudo_decode.h"
#include "tests/engine/backend/cuda/device/fake_device.h"
#include "tests/engine/kv/toy_profile.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve::testing {

/// A backend on a FakeDevice; with ASYMSERVE_ON_DEVICE on the GPU, of which `log` learns nothing.
inline std::unique_ptr<Backend> MakeCuda(const std::shared_ptr<DeviceLog>& log,
                                         const cuda::CudaOptions& options = {}) {
#ifdef ASYMSERVE_ON_DEVICE
  auto device = cuda::OpenRuntimeDevice();
  EXPECT_THAT(device, IsOk());
  if (!device.ok()) return nullptr;
  auto backend = cuda::MakeCudaBackend(*std::move(device), options);
#else
  auto backend = cuda::MakeCudaBackend(std::make_unique<FakeDevice>(log), options);
#endif
  EXPECT_THAT(backend, IsOk());
  return backend.ok() ? *std::move(backend) : nullptr;
}
inline std::unique_ptr<Backend> MakeCpu() {
  auto backend = MakeCpuBackend({.threads = 1});
  EXPECT_THAT(backend, IsOk());
  return *std::move(backend);
}

/// ToyCode of another head size: two planes a subvector.
inline PlaneCode WideToyCode(int32_t head_size) {
  const auto size = static_cast<size_t>(head_size);
  PlaneCode code;
  code.head_size = head_size;
  code.encode.resize(size * size);
  for (size_t i = 0; i < size; ++i) {
    code.encode[i * size + i] = 2.0f;
    code.encode[i * size + (i + 1) % size] = 0.25f;
    code.mean.push_back(0.125f * static_cast<float>(i % 8) - 0.5f);
  }
  auto decode = InverseOf(code.encode, head_size);
  ASYMSERVE_CHECK(decode.ok());
  code.decode = *std::move(decode);
  for (int32_t p = 0; p < head_size / 2; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p % (head_size / 4)));
    for (int32_t i = 0; i < 64; ++i) {
      code.codebooks.push_back(static_cast<float>((7 * i + 13 * p) % 64 - 32) / 16);
    }
  }
  return code;
}

/// A scheme of the toy model's shape, a named one or `learned`, whose codes are made up.
struct ToyScheme {
  ToyScheme(const std::string& name, const KvShape& shape) {
    if (name != "learned") {
      auto named = NamedKvScheme(name, shape);
      EXPECT_THAT(named, IsOk());
      scheme = *std::move(named);
      return;
    }
    const auto items = static_cast<size_t>(2 * shape.layers * shape.kv_heads);
    codes.assign(items, shape.head_size == 8 ? ToyCode(8, 2.0f) : WideToyCode(shape.head_size));
    const auto planes = static_cast<uint8_t>(codes[0].planes());
    scheme.name = name;
    scheme.near = KvCodec::kInt8;
    scheme.sink_pages = 1;
    scheme.fresh_pages = 1;
    scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
    scheme.items.assign(items, {.codec = KvCodec::kPlanes,
                                .base_planes = static_cast<uint8_t>(planes / 2),
                                .fresh_planes = planes});
  }

  KvScheme scheme;
  PlaneCodes codes;
};

/// A model on a backend, one sequence after the other.
class ToyServer {
 public:
  static constexpr int32_t kMostTokens = 640;

  ToyServer(Backend& backend, const std::string& path, const std::string& scheme)
      : loaded_(Load(backend, path, scheme)) {}
  const absl::Status& status() const { return loaded_; }
  LlamaModel& model() { return *model_; }

  /// The logits that follow each token of a prompt, but for the last one.
  absl::StatusOr<std::vector<float>> Read(std::span<const int32_t> prompt) {
    std::vector<float> rows;
    ASYMSERVE_RETURN_IF_ERROR(decoder_->Run(prompt, 0, [&](int32_t, std::span<const float> logits) {
      rows.insert(rows.end(), logits.begin(), logits.end());
    }));
    decoder_->Clear();
    return rows;
  }
  /// The logits that follow the tokens, which take the positions after those before.
  absl::StatusOr<std::vector<float>> Next(std::span<const int32_t> tokens) {
    std::vector<float> row;
    ASYMSERVE_RETURN_IF_ERROR(decoder_->Extend(
        decoder_->length(), tokens,
        [&](int32_t, std::span<const float> logits) { row.assign(logits.begin(), logits.end()); }));
    return row;
  }

 private:
  absl::Status Load(Backend& backend, const std::string& path, const std::string& scheme) {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto file, OpenWeightFile(path));
    const AttentionShape& attention = file->config().attention;
    const KvShape shape = {file->config().layers, attention.kv_heads, attention.head_size};
    ASYMSERVE_ASSIGN_OR_RETURN(
        model_, LlamaModel::Load(
                    *file, backend,
                    {.max_step_tokens = 64, .max_logit_rows = 64, .max_positions = kMostTokens}));
    const ToyScheme toy(scheme, shape);
    KvSetup setup;
    setup.shape = shape;
    setup.scheme = toy.scheme;
    setup.codes = &toy.codes;
    setup.rope = model_->rope();
    setup.rope_style = file->config().rope_style;
    ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder decoder,
                               PseudoDecoder::Create(*model_, backend, setup, kMostTokens));
    decoder_ = std::make_unique<PseudoDecoder>(std::move(decoder));
    return absl::OkStatus();
  }

  std::unique_ptr<LlamaModel> model_;
  std::unique_ptr<PseudoDecoder> decoder_;
  absl::Status loaded_;
};

/// Odd sizes; heads of 8 channels, as ToyCode has them.
inline ToyModel OddToy() {
  ToyModel toy;
  toy.width = 36;
  toy.feed_forward_width = 53;
  toy.heads = 6;
  toy.kv_heads = 2;
  toy.head_size = 8;
  toy.vocabulary = 291;
  toy.context_length = 1024;
  return toy;
}

/// The same with heads that PackedAttentionMma reads, a group of three.
inline ToyModel WideHeadToy(int32_t head_size = 64) {
  ToyModel toy = OddToy();
  toy.heads = 3;
  toy.kv_heads = 1;
  toy.head_size = head_size;
  return toy;
}

inline std::vector<int32_t> ToyPrompt(int32_t tokens, uint32_t seed, int32_t vocabulary) {
  std::vector<int32_t> prompt;
  uint32_t state = seed;
  for (int32_t i = 0; i < tokens; ++i) {
    state = state * 1664525u + 1013904223u;
    prompt.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocabulary)));
  }
  return prompt;
}

inline size_t Largest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace asymserve::testing
