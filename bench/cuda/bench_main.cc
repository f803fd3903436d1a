// Kernels of the CUDA backend on the first GPU, against the bandwidth of a copy that is measured in
// the same run. Writes JSON to standard output, progress to standard error.
//   bench_cuda [--only TEXT]  the benchmarks, or those whose names contain it
//   bench_cuda --model        whole steps of a model of 8 billion random weights instead
//   bench_cuda --device-name  only the device's name
// Status 3: no GPU.

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

#include "bench/cuda/decode_bench.h"
#include "bench/cuda/device_bench.h"
#include "engine/backend/cuda/dense_products.h"
#include "engine/backend/cuda/product_inputs.h"
#include "engine/backend/cuda/q4_layout.h"
#include "engine/backend/cuda/q4_products.h"
#include "engine/backend/cuda/rms_norm.h"
#include "engine/backend/cuda/runtime_device.h"
#include "engine/backend/cuda/swiglu.h"

namespace asymserve::bench {
namespace {

constexpr int kNoGpu = 3;

/// GB/s of a copy within the device, read and written bytes together.
double CopyBandwidth(Meter& meter) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const DeviceArray from(kBytes, 1);
  const DeviceArray to(kBytes);
  meter.Measure("copy 1 GiB", 2.0 * kBytes, 0, [&] {
    return cudaMemcpyAsync(to.As<void>(), from.As<void>(), kBytes, cudaMemcpyDeviceToDevice,
                           meter.stream());
  });
  const Measured& copy = meter.all().back();
  return copy.bytes / copy.microseconds * 1e-3;
}

void MeasureElementwise(Meter& meter) {
  constexpr int64_t kRows = 512;
  constexpr int32_t kCols = 4096;
  constexpr int32_t kWide = 14336;
  const DeviceArray x(kRows * kCols * 4);
  const DeviceArray delta(kRows * kCols * 4);
  const DeviceArray out(kRows * kWide * 4);
  const DeviceArray weight(int64_t{kCols} * 4);
  const DeviceArray gate_up(kRows * 2 * kWide * 4);
  meter.Measure("add_rms_norm 512 x 4096", 16.0 * kRows * kCols, 0, [&] {
    return cuda::AddRmsNorm(out.As<float>(), x.As<float>(), delta.As<float>(), weight.As<float>(),
                            kRows, kCols, 1e-5f, meter.stream());
  });
  meter.Measure("swiglu 512 x 14336", 12.0 * kRows * kWide, 0, [&] {
    return cuda::SwiGlu(out.As<float>(), gate_up.As<float>(), kRows, kWide, meter.stream());
  });
}

cudaError_t ProductOf(float* out, int64_t out_stride, const cuda::ProductInputs& x, int64_t rows,
                      const cuda::MatrixView& w, cudaStream_t stream) {
  if (cuda::IsQ4(w.type)) return cuda::Q4Product(out, out_stride, x, rows, w, stream);
  return cuda::DenseProduct(out, out_stride, x, rows, w, stream);
}

/// What each product, but for those that share their x, waits for.
void MeasureRounding(Meter& meter) {
  constexpr int64_t kMostRows = 512;
  constexpr int64_t kCols = 14336;
  const DeviceArray x(kMostRows * kCols * 4);
  const DeviceArray memory(cuda::ProductInputsBytes(kMostRows, kCols));
  for (const int64_t rows : {int64_t{1}, int64_t{32}, kMostRows}) {
    for (const int64_t cols : {int64_t{4096}, kCols}) {
      const cuda::ProductInputs to =
          cuda::PlaceProductInputs(memory.As<std::byte>(), rows, cols, cuda::kQ4InputOrder);
      meter.Measure(
          absl::StrCat("round_inputs ", rows, " x ", cols), 6.0 * static_cast<double>(rows * cols),
          0, [&] { return cuda::RoundInputs(to, x.As<float>(), rows, cols, meter.stream()); });
    }
  }
}

/// Of a weight, dense F16 or 4-bit. The rate of a decode step is that of few rows, and of weights
/// that the second-level cache does not hold: some 100 MB.
void MeasureProduct(Meter& meter, DType type, int32_t outputs, int32_t cols,
                    const std::vector<int64_t>& row_counts) {
  constexpr int64_t kMostRows = 512;
  constexpr int kBytes = 0x35;  // of weights and activations: small numbers, no zeros
  const bool is_q4 = cuda::IsQ4(type);
  const int64_t weight_bytes = is_q4
                                   ? cuda::Q4Tiles(outputs) * cuda::Q4Layout(type, cols).tile_bytes
                                   : outputs * RowBytes(type, cols);
  const DeviceArray weight(weight_bytes, kBytes);
  const DeviceArray memory(cuda::ProductInputsBytes(kMostRows, cols), kBytes);
  const DeviceArray out(kMostRows * outputs * 4);
  const cuda::MatrixView w = {weight.As<void>(), type, outputs, cols};
  for (const int64_t rows : row_counts) {
    const double bytes = static_cast<double>(weight_bytes) +
                         static_cast<double>(rows) * (4.0 * outputs + 2.0 * cols);
    const cuda::ProductInputs x = cuda::PlaceProductInputs(
        memory.As<std::byte>(), rows, cols, is_q4 ? cuda::kQ4InputOrder : cuda::kDenseInputOrder);
    meter.Measure(absl::StrCat("product ", Info(type).name, " ", rows, " x ", cols, " x ", outputs),
                  bytes, 2.0 * static_cast<double>(rows) * outputs * cols,
                  [&] { return ProductOf(out.As<float>(), outputs, x, rows, w, meter.stream()); });
  }
}

void MeasureProducts(Meter& meter) {
  for (const DType type : {DType::kF16, DType::kQ4_0, DType::kQ4_1, DType::kQ4K}) {
    MeasureProduct(meter, type, 4096, 4096, {1, 4, 8, 16, 32, 64, 512});
  }
  // Those of Llama-3-8B that are larger.
  MeasureProduct(meter, DType::kQ4_0, 6144, 4096, {1, 16, 512});
  MeasureProduct(meter, DType::kQ4_0, 28672, 4096, {1, 16, 512});
  MeasureProduct(meter, DType::kQ4_0, 4096, 14336, {1, 16, 512});
  MeasureProduct(meter, DType::kQ4_0, 128256, 4096, {1, 16});
}

void Print(const std::string& device, double copy, const std::vector<Measured>& all) {
  std::printf("{\"device\": \"%s\", \"copy_gb_s\": %.1f, \"kernels\": [", device.c_str(), copy);
  const char* before = "";
  for (const Measured& one : all) {
    const double rate = one.bytes / one.microseconds * 1e-3;
    std::printf("%s\n  {\"name\": \"%s\", \"us\": %.2f, \"gb_s\": %.1f, \"of_copy\": %.3f", before,
                one.name.c_str(), one.microseconds, rate, rate / copy);
    if (one.operations > 0) {
      std::printf(", \"tflop_s\": %.3f", one.operations / one.microseconds * 1e-6);
    }
    std::printf("}");
    before = ",";
  }
  std::printf("]}\n");
}

int Run(int argc, char** argv) {
  const std::string_view option = argc > 1 ? argv[1] : "";
  const bool only_name = argc == 2 && option == "--device-name";
  const bool only_model = argc == 2 && option == "--model";
  const std::string filter = argc == 3 && option == "--only" ? argv[2] : "";
  if (argc > 1 && !only_name && !only_model && filter.empty()) {
    std::fprintf(stderr, "usage: bench_cuda [--only TEXT | --model | --device-name]\n");
    return 2;
  }
  auto device = cuda::OpenRuntimeDevice();
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", std::string(device.status().message()).c_str());
    return absl::IsNotFound(device.status()) ? kNoGpu : 1;
  }
  if (only_name) {
    std::printf("%s\n", (*device)->name().c_str());
    return 0;
  }
  Meter unfiltered(**device, "");
  const double copy = CopyBandwidth(unfiltered);
  Meter meter(**device, filter);
  if (only_model) {
    MeasureModel(meter);
    Print((*device)->name(), copy, meter.all());
    return 0;
  }
  MeasureElementwise(meter);
  MeasureRounding(meter);
  MeasureProducts(meter);
  MeasureKvCache(**device, meter);
  Print((*device)->name(), copy, meter.all());
  return 0;
}

}  // namespace
}  // namespace asymserve::bench

int main(int argc, char** argv) {
  return asymserve::bench::Run(argc, argv);
}
