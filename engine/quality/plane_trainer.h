#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/thread_pool.h"
#include "engine/kv/plane_code.h"
#include "engine/quality/kv_curvature.h"
#include "engine/quality/linear_algebra.h"

namespace asymserve {

struct PlaneTraining {
  int32_t max_planes = 48;  // even; fewer when D/4 * stages is less
  int32_t stages = 4;       // codebooks that may be stacked on one subvector, 1 to 16
  int32_t iterations = 12;  // of k-means
  double ridge = 0.03;      // of the metric's mean diagonal, added to its diagonal
  uint64_t seed = 1;
};

struct TrainedPlanes {
  PlaneCode code;  // tables are fp16 values, as a profile stores them
  /// [planes + 1]: weighted mean over the rows of (x - x')^T M (x - x') for the first p planes, M
  /// the metric with the ridge and as far as fp16 holds it; [0] is that of the mean alone.
  std::vector<double> distortion;
};

/// Trains the code of one item (kv-cache: "the learned code"):
///
///   M = metric + ridge = A A^T, U = eigenvectors of the second moment of A^T (x - mean), largest
///   first, encode = A U times a power of two that brings z into the middle of fp16's range;
///   4-channel subvectors of z with stacked 16-entry codebooks, each trained by k-means on what the
///   codebooks before it left; planes in the order in which they remove most distortion, those of a
///   subvector in theirs.
///
/// Every table is rounded to fp16 before what follows is trained, so that later tables make up for
/// it. `rows` [N][D], at least 16 of them; `weights` [N], >= 0 with a mean of 1, or empty: how much
/// a row counts; `metric` [D][D]. A function of its arguments only.
/// InvalidArgument: too few rows, NaN, a metric that is not positive, values that fp16 cannot hold.
absl::StatusOr<TrainedPlanes> TrainPlanes(std::span<const float> rows,
                                          std::span<const float> weights,
                                          const SquareMatrix& metric,
                                          const PlaneTraining& training);

/// Trains every item of a model, [L][2][G] as in KvScheme::items, on all threads of the pool. The
/// result does not depend on their number. Errors name the item.
absl::StatusOr<std::vector<TrainedPlanes>> TrainAllPlanes(const KvCurvature& curvature,
                                                          const PlaneTraining& training,
                                                          ThreadPool& pool);

}  // namespace asymserve
