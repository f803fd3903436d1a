#pragma once

#include <cstring>
#include <span>
#include <string>

#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/kv/plane_inverse.h"
#include "engine/kv/profile.h"

namespace asymserve::testing {

/// Completes the bytes of a profile from which size and digest are missing or wrong: sets the size
/// and appends the digest.
inline std::string SignProfile(std::string content) {
  constexpr size_t kSizeOffset = 12;
  const uint64_t size = content.size() + sizeof(Sha256Digest);
  if (content.size() >= kSizeOffset + sizeof(size)) {
    std::memcpy(content.data() + kSizeOffset, &size, sizeof(size));
  }
  const Sha256Digest digest = Sha256Of(std::as_bytes(std::span(content)));
  return content.append(reinterpret_cast<const char*>(digest.data()), digest.size());
}

/// A code of head size 8 whose transform is a scaled and sheared identity.
inline PlaneCode ToyCode(int32_t planes, float scale) {
  PlaneCode code;
  code.head_size = 8;
  code.encode.resize(64);
  for (size_t i = 0; i < 8; ++i) {
    code.encode[i * 8 + i] = scale;
    code.encode[i * 8 + (i + 1) % 8] = 0.25f;
  }
  auto decode = InverseOf(code.encode, 8);
  ASYMSERVE_CHECK(decode.ok());
  code.decode = *std::move(decode);
  for (int i = 0; i < 8; ++i) code.mean.push_back(0.5f * static_cast<float>(i - 3));
  for (int32_t p = 0; p < planes; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p % 2));
    for (int i = 0; i < 64; ++i) {
      code.codebooks.push_back(static_cast<float>((7 * i + 13 * p) % 64 - 32) / 16);
    }
  }
  return code;
}

/// 2 layers, 1 KV head of size 8; the values of layer 0 and the keys of layer 1 have no codes.
inline KvProfile ToyProfile() {
  KvProfile profile;
  profile.shape = {2, 1, 8};
  for (size_t i = 0; i < profile.model_digest.size(); ++i) {
    profile.model_digest[i] = static_cast<uint8_t>(3 * i);
  }
  profile.frame_tokens = 128;
  profile.codes = {ToyCode(4, 2.0f), {}, {}, ToyCode(8, -1.5f)};
  const KvItem int8 = {.codec = KvCodec::kInt8};
  const KvItem fitted = {.codec = KvCodec::kFitted, .bits = 4};
  const auto planes = [](uint8_t base, uint8_t fresh) {
    return KvItem{.codec = KvCodec::kPlanes, .base_planes = base, .fresh_planes = fresh};
  };
  profile.tiers = {{.name = "balanced",
                    .sink_pages = 1,
                    .recent_pages = 1,
                    .fresh_pages = 4,
                    .items = {planes(2, 4), int8, fitted, planes(4, 8)},
                    .losses = {{"wikitext-2", 2048, 0.032, 0.33}, {"gsm8k", 1000, 0.024, 0.34}}},
                   {.name = "dense.v2",
                    .sink_pages = 1,
                    .items = {planes(2, 2), fitted, int8, planes(2, 2)},
                    .losses = {}}};
  profile.description = "made by hand";
  return profile;
}

}  // namespace asymserve::testing
