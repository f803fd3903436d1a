// Everything that reads a GGUF file: directory, typed access, configuration, tokenizer, tensors.

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/model/gguf.h"
#include "engine/model/gguf_config.h"
#include "engine/model/gguf_file.h"
#include "engine/model/gguf_tokenizer.h"

namespace {

void ReadEveryWay(const asymserve::Gguf& gguf, std::string_view key) {
  (void)gguf.Integer(key).ok();
  (void)gguf.Float(key).ok();
  (void)gguf.Bool(key).ok();
  (void)gguf.String(key).ok();
  (void)gguf.Strings(key).ok();
  (void)gguf.Integers(key).ok();
  (void)gguf.Floats(key).ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto gguf = asymserve::Gguf::Parse(std::as_bytes(std::span(data, size)));
  if (!gguf.ok()) return 0;
  for (const char* key : {"general.architecture", "general.alignment", "a", "tokenizer.ggml.tokens",
                          "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    ReadEveryWay(*gguf, key);
  }
  (void)asymserve::TokenizerSpecFromGguf(*gguf).ok();
  const auto config = asymserve::ModelConfigFromGguf(*gguf);
  if (config.ok()) (void)asymserve::WeightTableFromGguf(*gguf, *config).ok();
  // Every byte of every tensor is inside of the file.
  unsigned sum = 0;
  for (const asymserve::GgufTensor& tensor : gguf->tensors()) {
    sum += static_cast<unsigned>(tensor.data.front()) + static_cast<unsigned>(tensor.data.back());
  }
  volatile unsigned sink = sum;
  (void)sink;
  return 0;
}
