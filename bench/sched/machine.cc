#include "bench/sched/machine.h"

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

/// Two threads of a virtual AMD EPYC with AVX-512 VNNI and SmolLM2-135M-Instruct Q4_1, from figures
/// measured on our own engine (README.md and engine/kv/README.md).
Machine CpuSmolLm2() {
  Machine machine;
  machine.name = "cpu-smollm2";
  machine.shape = {.layers = 30, .kv_heads = 3, .head_size = 64};
  machine.kv_bytes = int64_t{128} << 20;
  machine.context_tokens = 4096;
  machine.max_running = 32;
  machine.max_waiting = 256;
  machine.step_tokens = 128;
  machine.fixed_us = 4150;
  machine.decode_row_us = 675;
  machine.prefill_token_us = 426;
  machine.prefill_context_us = 0.365;
  machine.kv_bytes_per_us = 21'300;
  machine.speeds = {{.scheme = "exact"},
                    {.scheme = "int8", .row_context_us = 0.219},
                    {.scheme = "kivi-2", .row_context_us = 0.790, .seal_us = 1000},
                    {.scheme = "fit-2/2", .row_context_us = 0.695, .seal_us = 7200},
                    {.scheme = "light", .row_context_us = 0.386, .seal_us = 1550},
                    {.scheme = "balanced", .row_context_us = 0.366, .seal_us = 1600},
                    {.scheme = "dense", .row_context_us = 0.313, .seal_us = 1600}};
  return machine;
}

/// A model, not a measurement: an H100 SXM (80 GB, 3.35 TB/s, 989 Tflop/s dense in 16 bit) with
/// Llama-3-8B in 16 bit, at 80 % of the bandwidth and 50 % of the arithmetic.
Machine H100Llama3() {
  constexpr double kBytesPerUs = 3.35e6 * 0.8;
  constexpr double kFlopPerUs = 989.4e6 * 0.5;
  constexpr double kParameters = 8.03e9;
  constexpr double kQueryWidth = 32 * 128;
  constexpr double kQuantizedRead = 2;
  Machine machine;
  machine.name = "h100-llama-3-8b";
  machine.shape = {.layers = 32, .kv_heads = 8, .head_size = 128};
  machine.kv_bytes = 60'000'000'000;  // of 80 GB: planned_machine_test
  machine.context_tokens = 8192;
  machine.max_running = 1024;
  machine.max_waiting = 256;
  machine.step_tokens = 2048;
  machine.fixed_us = 1500;
  machine.weights_us = 2 * kParameters / kBytesPerUs;
  machine.prefill_token_us = machine.decode_row_us = 2 * kParameters / kFlopPerUs;
  machine.prefill_context_us = 4 * kQueryWidth * machine.shape.layers / kFlopPerUs;
  machine.kv_bytes_per_us = kBytesPerUs;
  machine.uniform_tiers = true;
  machine.speeds = {{.scheme = "exact"},
                    {.scheme = "int8"},
                    {.scheme = "kivi-*", .read_factor = kQuantizedRead, .seal_us = 5},
                    {.scheme = "asymkv-*", .read_factor = kQuantizedRead, .seal_us = 5},
                    {.scheme = "fit-*", .read_factor = kQuantizedRead, .seal_us = 10},
                    {.scheme = "light", .read_factor = kQuantizedRead, .seal_us = 10},
                    {.scheme = "balanced", .read_factor = kQuantizedRead, .seal_us = 10},
                    {.scheme = "dense", .read_factor = kQuantizedRead, .seal_us = 10}};
  return machine;
}

/// An H100 with our kernels and Llama-3-8B in Q4_0, by the steps that bench_cuda measured there
/// (bench/results/NVIDIA-H100-80GB-HBM3-2026-11-27.json; tests/bench holds this against it).
Machine H100Llama3Q4() {
  Machine machine;
  machine.name = "h100-llama-3-8b-q4";
  machine.shape = {.layers = 32, .kv_heads = 8, .head_size = 128};
  machine.kv_bytes = 70'000'000'000;  // of 80 GB: planned_machine_test
  machine.context_tokens = 8192;
  machine.max_running = 256;  // as many decode in some 90 ms at 4,096 tokens
  machine.max_waiting = 256;
  machine.step_tokens = 768;
  machine.fixed_us = 3335;
  machine.weights_us = 1000;
  machine.prefill_token_us = 111.6;
  machine.decode_row_us = 160;
  machine.prefill_context_us = 0.0184;
  machine.kv_bytes_per_us = 2.018e6;
  machine.uniform_tiers = true;
  machine.speeds = {{.scheme = "exact"},
                    {.scheme = "balanced",
                     .row_context_us = 0.0312,
                     .seal_us = 368,
                     .fixed_us = 1500,
                     .decode_row_us = 12,
                     .prefill_context_us = 0.0062},
                    {.scheme = "dense",
                     .row_context_us = 0.0311,
                     .seal_us = 368,
                     .fixed_us = 1500,
                     .decode_row_us = 12,
                     .prefill_context_us = 0.0062}};
  return machine;
}

/// As the tiers of a profile, every item alike: 3 bits per element while fresh.
KvScheme UniformTier(const KvShape& shape, std::string_view name, double bits) {
  const int32_t planes_per_bit =
      shape.head_size / 4;  // a plane: 4 bits for all 64 tokens of a page
  KvScheme scheme;
  scheme.name = std::string(name);
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  scheme.fresh_pages = 4;
  const KvItem item = {.codec = KvCodec::kPlanes,
                       .base_planes = static_cast<uint8_t>(bits * planes_per_bit),
                       .fresh_planes = static_cast<uint8_t>(3 * planes_per_bit)};
  scheme.items.assign(static_cast<size_t>(2 * shape.layers * shape.kv_heads), item);
  return scheme;
}

}  // namespace

absl::StatusOr<SchemeSpeed> Machine::Speed(std::string_view scheme) const {
  std::string known;
  for (const SchemeSpeed& speed : speeds) {
    const std::string_view stem = speed.scheme.substr(0, speed.scheme.find('*'));
    if (speed.scheme.ends_with('*') ? scheme.starts_with(stem) : scheme == stem) return speed;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(speed.scheme));
  }
  return absl::InvalidArgumentError(absl::StrCat("scheme '", std::string(scheme), "': machine ",
                                                 std::string(name), " has figures for ", known));
}

absl::StatusOr<Machine> NamedMachine(std::string_view name) {
  std::string known;
  for (const auto& make : {CpuSmolLm2, H100Llama3, H100Llama3Q4}) {
    Machine machine = make();
    if (machine.name == name) return machine;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(machine.name));
  }
  return absl::NotFoundError(absl::StrCat("machine '", std::string(name), "': there are ", known));
}

absl::StatusOr<KvScheme> MachineScheme(const Machine& machine, std::string_view name,
                                       const KvProfile* profile) {
  if (machine.uniform_tiers) {
    if (name == "light") return UniformTier(machine.shape, name, 1.5);
    if (name == "balanced") return UniformTier(machine.shape, name, 1.0);
    if (name == "dense") return UniformTier(machine.shape, name, 0.75);
    return NamedKvScheme(name, machine.shape);
  }
  return ResolveKvScheme(name, machine.shape, profile);
}

}  // namespace asymserve
