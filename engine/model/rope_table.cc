#include <cmath>
#include <numbers>

#include "engine/model/llama.h"

namespace asymserve {
namespace {

// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, between them interpolated.
double ScaledFrequency(double frequency, const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      return frequency;
    case RopeScaling::Kind::kLinear:
      return frequency / static_cast<double>(scaling.factor);
    case RopeScaling::Kind::kLlama3:
      break;
  }
  const double factor = static_cast<double>(scaling.factor);
  const double low = static_cast<double>(scaling.low_freq_factor);
  const double high = static_cast<double>(scaling.high_freq_factor);
  const double turns = scaling.original_context * frequency / (2 * std::numbers::pi);
  if (turns < low) return frequency / factor;
  if (turns > high) return frequency;
  const double smooth = (turns - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> RopeTable(const ModelConfig& config, int32_t positions) {
  const int32_t head_size = config.attention.head_size;
  const int32_t pairs = head_size / 2;
  std::vector<float> table(static_cast<size_t>(positions) * static_cast<size_t>(head_size));
  for (int32_t pair = 0; pair < pairs; ++pair) {
    double frequency = std::pow(static_cast<double>(config.rope_base), -2.0 * pair / head_size);
    if (!config.rope_factors.empty()) {
      frequency /= static_cast<double>(config.rope_factors[static_cast<size_t>(pair)]);
    }
    frequency = ScaledFrequency(frequency, config.rope_scaling);
    for (int32_t position = 0; position < positions; ++position) {
      float* row = table.data() + static_cast<size_t>(position) * static_cast<size_t>(head_size);
      row[pair] = static_cast<float>(std::cos(position * frequency));
      row[pairs + pair] = static_cast<float>(std::sin(position * frequency));
    }
  }
  return table;
}

}  // namespace asymserve
