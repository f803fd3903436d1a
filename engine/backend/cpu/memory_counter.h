#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

namespace asymserve {

/// Counts what the CPU backend with so many threads would allocate (Backend::MakeCounter).
std::unique_ptr<Backend> MakeCpuMemoryCounter(int threads);

// What the backend and its counter check alike.

/// InvalidArgument unless `count` values make `rows` equal rows.
absl::Status CheckCpuUpload(int64_t count, int64_t rows);
/// Bytes of rows x cols floats; InvalidArgument when that is nothing or absurd.
absl::StatusOr<int64_t> CpuFloatBytes(int64_t rows, int64_t cols);
absl::Status CheckCpuReserve(int64_t max_tokens, int64_t max_cols);

}  // namespace asymserve
