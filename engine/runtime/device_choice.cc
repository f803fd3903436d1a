#include "engine/runtime/device_choice.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace asymserve {

absl::StatusOr<std::unique_ptr<Backend>> ChooseDevice(
    const std::string& device, const OpenBackend& open_cuda, const OpenBackend& open_cpu,
    const std::function<void(const absl::Status&)>& on_fallback) {
  if (device == "cpu") return open_cpu();
  absl::StatusOr<std::unique_ptr<Backend>> backend = open_cuda();
  if (backend.ok()) return backend;
  const absl::Status why = backend.status();
  const bool is_absent = absl::IsNotFound(why) || absl::IsFailedPrecondition(why);
  if (device == "auto" && is_absent) {
    on_fallback(why);
    return open_cpu();
  }
  return absl::Status(why.code(),
                      absl::StrCat("engine.device: ", device, ": ", std::string(why.message()),
                                   "; engine.device=cpu ", device == "auto" ? "" : "or auto ",
                                   "serves on the CPU"));
}

}  // namespace asymserve
