#include "engine/backend/cuda_library.h"

#include <dlfcn.h>
#include <elf.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cuda_module.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

// What the build says of device code, and whether it made the library.
constexpr char kDeviceCode[] = ASYMSERVE_DEVICE_CODE;
constexpr bool kIsBuilt = ASYMSERVE_BUILDS_CUDA_LIBRARY;

absl::Status Missing(const std::string& library) {
  return absl::NotFoundError(
      absl::StrCat("no CUDA library: ", library.empty() ? "/proc/self/exe cannot be read" : library,
                   library.empty() ? "" : " does not exist", "; ",
                   kIsBuilt ? "the build made one, install it there"
                            : absl::StrCat("this build made none (", kDeviceCode, ")")));
}

/// The loader maps what a file's head says and does not look at its size: of one that was cut short
/// it would touch pages that are not there. What is no ELF file at all it refuses by itself.
absl::Status CheckWhole(const std::string& library) {
  Elf64_Ehdr head = {};
  std::ifstream file(library, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(&head), sizeof(head))) return absl::OkStatus();
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) return absl::OkStatus();
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(library, error);
  const uint64_t needed = head.e_shoff + uint64_t{head.e_shnum} * head.e_shentsize;
  if (error || bytes >= needed) return absl::OkStatus();  // the table of sections is at the end
  return absl::FailedPreconditionError(absl::StrCat("the CUDA library cannot be loaded: ", library,
                                                    ": is cut short: it has ", bytes, " of ",
                                                    needed, " bytes"));
}

/// The library's entry, checked; it may be called.
absl::StatusOr<const CudaModule*> LoadModule(const std::string& library) {
  std::error_code error;
  if (library.empty() || !std::filesystem::exists(library, error)) return Missing(library);
  ASYMSERVE_RETURN_IF_ERROR(CheckWhole(library));
  // Never unloaded: objects of its types may live until the process ends.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* why = dlerror();  // NOLINT(concurrency-mt-unsafe): glibc has one for each thread
    return absl::FailedPreconditionError(absl::StrCat("the CUDA library cannot be loaded: ", why));
  }
  void* symbol = dlsym(handle, kCudaModuleSymbol);
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the CUDA library ", library,
                                                      " does not export ", kCudaModuleSymbol,
                                                      ": it is another one's"));
  }
  CudaModuleEntry* entry = nullptr;
  std::memcpy(&entry, &symbol, sizeof(entry));
  const CudaModule* found = entry();
  if (found->abi != kCudaModuleAbi || std::strcmp(found->build_id, BuildId()) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the CUDA library ", library, " is of another build: interface ", found->abi,
                     ", build ", found->build_id, "; this executable needs interface ",
                     kCudaModuleAbi, ", build ", BuildId(), ": install both from one build"));
  }
  return found;
}

}  // namespace

std::string CudaLibraryPath() {
  std::error_code error;
  const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "";
  return executable.parent_path().parent_path() / "lib" / "asymserve" / "libasymserve_cuda.so";
}

absl::StatusOr<std::unique_ptr<Backend>> OpenCudaBackend(const std::string& library) {
  const absl::StatusOr<const CudaModule*> found = LoadModule(library);
  if (!found.ok()) return found.status();
  absl::StatusOr<std::unique_ptr<Backend>> backend = absl::UnknownError("not opened");
  (*found)->open(&backend);
  return backend;
}

}  // namespace asymserve
