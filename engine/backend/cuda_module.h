#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

// The CUDA backend is a library of its own, libasymserve_cuda.so, which the executable loads when a
// GPU is to be used: so neither links the other, and the executable runs where there is no driver.
// The library exports one function. What it shares with the executable are the shared libraries of
// both (C++, absl), hence the check of the build below; of engine/base and engine/kv it has copies
// of its own, which are hidden and hold no state that the two would have to share: it neither logs
// nor counts metrics nor starts threads. Objects that cross are used through virtual functions and
// freed by their own destructors; their types are compared by name (RTTI) on either side.

namespace asymserve {

/// Of the struct below. Another one needs another number.
inline constexpr uint32_t kCudaModuleAbi = 1;
inline constexpr char kCudaModuleSymbol[] = "asymserve_cuda_module";

struct CudaModule {
  // These two are where they are in every version: they are read of libraries of other builds, too.
  uint32_t abi;
  const char* build_id;  // BuildId() of the library

  /// Opens the first GPU and makes the backend on it. The codes are those of OpenCudaBackend.
  void (*open)(absl::StatusOr<std::unique_ptr<Backend>>* backend);
};
using CudaModuleEntry = const CudaModule*();

/// Equal for files whose headers, compiler and flags are the same: only then may C++ objects cross.
const char* BuildId();

}  // namespace asymserve

/// What the library exports.
extern "C" const asymserve::CudaModule* asymserve_cuda_module();
