#include <map>

#include "tests/simt/include/cuda_runtime.h"

namespace simt {
namespace {

constexpr size_t kSharedWithoutAsking = 48 * 1024;

std::map<const void*, size_t>& AllowedSharedBytes() {
  static std::map<const void*, size_t> allowed;
  return allowed;
}

}  // namespace

cudaError_t AllowSharedBytes(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<uint32_t>(bytes) > SharedMemory::kMaxBytes) {
    return cudaErrorInvalidValue;
  }
  AllowedSharedBytes()[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

cudaError_t CheckLaunch(const void* kernel, const cudaLaunchConfig_t& config) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool fits = threads >= 1 && threads <= Machine::kMaxThreads && block.z <= 64 &&
                    grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= 0x7FFFFFFF &&
                    grid.y <= 65535 && grid.z <= 65535;
  if (!fits) return cudaErrorInvalidConfiguration;
  const auto found = AllowedSharedBytes().find(kernel);
  const size_t allowed = found == AllowedSharedBytes().end() ? 0 : found->second;
  const bool has_shared = config.dynamicSmemBytes <= std::max(kSharedWithoutAsking, allowed);
  return has_shared ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace simt
