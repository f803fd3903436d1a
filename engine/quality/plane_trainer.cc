#include "engine/quality/plane_trainer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/float16.h"
#include "engine/base/philox.h"
#include "engine/base/status.h"
#include "engine/kv/codec.h"
#include "engine/kv/item_name.h"
#include "engine/kv/plane_inverse.h"
#include "engine/quality/k_means.h"

namespace asymserve {
namespace {

constexpr int32_t kChannels = 4;
constexpr size_t kLeastRows = 16;
// The largest root mean square of a channel of z lies in [64, 128), its smallest is then far above
// fp16's subnormals.
constexpr int kSpreadExponent = 7;
constexpr double kLargestEntry = 32768;

absl::Status RoundToHalf(std::span<float> values, const char* what) {
  for (float& value : values) {
    const float rounded = HalfToFloat(FloatToHalf(value));
    if (!std::isfinite(rounded)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has ", value, ", which fp16 cannot hold"));
    }
    value = rounded;
  }
  return absl::OkStatus();
}

absl::Status CheckArguments(std::span<const float> rows, std::span<const float> weights,
                            const SquareMatrix& metric, const PlaneTraining& training) {
  const int32_t n = metric.n;
  if (n < 8 || n > kMaxKvHeadSize || n % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("head size ", n));
  }
  const size_t width = static_cast<size_t>(n);
  if (rows.size() % width != 0 || rows.size() / width < kLeastRows) {
    return absl::InvalidArgumentError(
        absl::StrCat(rows.size(), " values are not ", kLeastRows, " or more rows of ", n));
  }
  if (!weights.empty() && weights.size() != rows.size() / width) {
    return absl::InvalidArgumentError(
        absl::StrCat(weights.size(), " weights of ", rows.size() / width, " rows"));
  }
  if (training.max_planes < 2 || training.max_planes % 2 != 0 || training.max_planes > 254 ||
      training.stages < 1 || training.stages > 16 || training.iterations < 0) {
    return absl::InvalidArgumentError(absl::StrCat(training.max_planes, " planes, ",
                                                   training.stages, " stages, ",
                                                   training.iterations, " iterations"));
  }
  for (const float value : rows) {
    if (!std::isfinite(value)) return absl::InvalidArgumentError("a row has NaN or infinity");
  }
  return absl::OkStatus();
}

/// One item's training, stage by stage.
class PlaneTrainer {
 public:
  PlaneTrainer(std::span<const float> rows, std::span<const float> weights,
               const SquareMatrix& metric, const PlaneTraining& training)
      : rows_(rows),
        weights_(weights),
        metric_(metric),
        training_(training),
        width_(static_cast<size_t>(metric.n)),
        count_(rows.size() / width_),
        subvectors_(width_ / kChannels) {
    code_.head_size = metric.n;
  }

  absl::StatusOr<TrainedPlanes> Run() {
    ASYMSERVE_RETURN_IF_ERROR(SetMean());
    ASYMSERVE_RETURN_IF_ERROR(SetTransform());
    TransformRows();
    ASYMSERVE_RETURN_IF_ERROR(TrainCodebooks());
    return OrderPlanes();
  }

 private:
  struct Stage {
    Codebook codebook;
    double left;  // mean square of the subvector after this stage
  };

  absl::Status SetMean() {
    std::vector<double> sums(width_);
    for (size_t i = 0; i < count_; ++i) {
      for (size_t d = 0; d < width_; ++d) {
        sums[d] += Weight(i) * static_cast<double>(rows_[i * width_ + d]);
      }
    }
    for (const double sum : sums) {
      code_.mean.push_back(static_cast<float>(sum / static_cast<double>(count_)));
    }
    return RoundToHalf(code_.mean, "mean");
  }

  SquareMatrix SecondMoment() const {
    SquareMatrix moment(code_.head_size);
    std::vector<double> x(width_);
    for (size_t i = 0; i < count_; ++i) {
      for (size_t d = 0; d < width_; ++d) {
        x[d] = static_cast<double>(rows_[i * width_ + d] - code_.mean[d]);
      }
      for (size_t r = 0; r < width_; ++r) {
        double* out = moment.values.data() + r * width_;
        const double factor = Weight(i) * x[r];
        for (size_t c = 0; c <= r; ++c) out[c] += factor * x[c];
      }
    }
    for (int32_t r = 0; r < moment.n; ++r) {
      for (int32_t c = 0; c <= r; ++c) {
        moment.at(r, c) /= static_cast<double>(count_);
        moment.at(c, r) = moment.at(r, c);
      }
    }
    return moment;
  }

  absl::Status SetTransform() {
    SquareMatrix metric = metric_;
    double diagonal = 0;
    for (int32_t d = 0; d < metric.n; ++d) diagonal += metric.at(d, d) / metric.n;
    for (int32_t d = 0; d < metric.n; ++d) metric.at(d, d) += training_.ridge * diagonal;
    auto factor = Cholesky(metric);
    if (!factor.ok()) return Annotate(factor.status(), "metric");
    const Eigensystem system =
        SymmetricEigensystem(Product(Product(Transpose(*factor), SecondMoment()), *factor));
    const SquareMatrix encode = Product(*factor, system.vectors);
    double largest = 0;
    for (const double value : encode.values) largest = std::max(largest, std::fabs(value));
    // The power of two: from the spread of z, but no entry may leave fp16's range.
    exponent_ = std::ilogb(kLargestEntry / largest);
    if (system.values[0] > 0) {
      exponent_ =
          std::min(exponent_, kSpreadExponent - 1 - std::ilogb(std::sqrt(system.values[0])));
    }
    for (const double value : encode.values) {
      code_.encode.push_back(static_cast<float>(std::ldexp(value, exponent_)));
    }
    ASYMSERVE_RETURN_IF_ERROR(RoundToHalf(code_.encode, "encode"));
    ASYMSERVE_ASSIGN_OR_RETURN(code_.decode, InverseOf(code_.encode, code_.head_size));
    return absl::OkStatus();
  }

  /// As EncodeBlock does it, bit for bit.
  void TransformRows() {
    z_.resize(width_ * count_);
    std::vector<float> centred(width_);
    std::vector<float> z(width_);
    for (size_t i = 0; i < count_; ++i) {
      for (size_t d = 0; d < width_; ++d) centred[d] = rows_[i * width_ + d] - code_.mean[d];
      TimesMatrix(centred.data(), code_.encode.data(), code_.head_size, z.data());
      for (size_t d = 0; d < width_; ++d) z_[d * count_ + i] = z[d];
    }
  }

  double Weight(size_t row) const {
    return weights_.empty() ? 1 : static_cast<double>(weights_[row]);
  }

  Points Subvector(size_t subvector) {
    Points points;
    points.weight = weights_;
    for (size_t c = 0; c < kChannels; ++c) {
      points.channel[c] = std::span(z_).subspan((subvector * kChannels + c) * count_, count_);
    }
    return points;
  }

  absl::Status TrainCodebooks() {
    stages_.resize(subvectors_);
    std::vector<int32_t> entries(count_);
    for (size_t s = 0; s < subvectors_; ++s) {
      const Points points = Subvector(s);
      undivided_.push_back(MeanSquare(points));
      for (int32_t stage = 0; stage < training_.stages; ++stage) {
        const uint64_t stream = s * 16 + static_cast<uint64_t>(stage);
        const auto words = Philox({static_cast<uint32_t>(stream), 0, 0, 0}, training_.seed);
        const uint64_t seed = uint64_t{words[0]} << 32 | words[1];
        Codebook codebook = TrainCodebook(points, training_.iterations, seed);
        ASYMSERVE_RETURN_IF_ERROR(RoundToHalf(codebook, "a codebook"));
        NearestEntries(points, codebook, entries);
        SubtractEntries(points, codebook, entries);
        stages_[s].push_back({codebook, MeanSquare(points)});
      }
    }
    return absl::OkStatus();
  }

  /// What a subvector leaves with its first `stages` codebooks.
  double Left(size_t subvector, size_t stages) const {
    return stages == 0 ? undivided_[subvector] : stages_[subvector][stages - 1].left;
  }

  TrainedPlanes OrderPlanes() {
    const size_t available = subvectors_ * static_cast<size_t>(training_.stages);
    const size_t planes = std::min(static_cast<size_t>(training_.max_planes), available);
    const double unit = std::ldexp(1.0, -2 * exponent_);  // z is scaled, the distortion is not
    std::vector<size_t> used(subvectors_);
    TrainedPlanes trained;
    const auto add_distortion = [&] {
      double sum = 0;
      for (size_t s = 0; s < subvectors_; ++s) sum += Left(s, used[s]);
      trained.distortion.push_back(sum * unit);
    };
    add_distortion();
    while (code_.subvector.size() < planes) {
      size_t best = subvectors_;
      double most = 0;
      for (size_t s = 0; s < subvectors_; ++s) {
        if (used[s] == stages_[s].size()) continue;
        const double removed = Left(s, used[s]) - Left(s, used[s] + 1);
        if (best == subvectors_ || removed > most) {
          best = s;
          most = removed;
        }
      }
      const Codebook& codebook = stages_[best][used[best]++].codebook;
      code_.subvector.push_back(static_cast<uint8_t>(best));
      code_.codebooks.insert(code_.codebooks.end(), codebook.begin(), codebook.end());
      add_distortion();
    }
    trained.code = std::move(code_);
    return trained;
  }

  std::span<const float> rows_;     // [count_][width_]
  std::span<const float> weights_;  // [count_] or empty
  const SquareMatrix& metric_;
  const PlaneTraining& training_;
  const size_t width_;
  const size_t count_;
  const size_t subvectors_;
  PlaneCode code_;
  int exponent_ = 0;
  std::vector<float> z_;  // [width_][count_], what the stages so far left
  std::vector<double> undivided_;
  std::vector<std::vector<Stage>> stages_;  // [subvectors_][stages]
};

}  // namespace

absl::StatusOr<TrainedPlanes> TrainPlanes(std::span<const float> rows,
                                          std::span<const float> weights,
                                          const SquareMatrix& metric,
                                          const PlaneTraining& training) {
  ASYMSERVE_RETURN_IF_ERROR(CheckArguments(rows, weights, metric, training));
  return PlaneTrainer(rows, weights, metric, training).Run();
}

absl::StatusOr<std::vector<TrainedPlanes>> TrainAllPlanes(const KvCurvature& curvature,
                                                          const PlaneTraining& training,
                                                          ThreadPool& pool) {
  const KvShape& shape = curvature.shape();
  std::vector<absl::StatusOr<TrainedPlanes>> results(KvItemCount(shape));
  pool.ParallelFor(static_cast<int>(results.size()), [&](int chunk, int /*thread*/) {
    const auto item = static_cast<size_t>(chunk);
    PlaneTraining own = training;
    const auto words = Philox({static_cast<uint32_t>(item), 1, 0, 0}, training.seed);
    own.seed = uint64_t{words[0]} << 32 | words[1];
    const SquareMatrix metric = curvature.Metric(item);
    results[item] = TrainPlanes(curvature.Rows(item), curvature.Weights(item), metric, own);
  });
  std::vector<TrainedPlanes> trained;
  for (size_t item = 0; item < results.size(); ++item) {
    if (!results[item].ok()) {
      return Annotate(results[item].status(), KvItemName(shape, item));
    }
    trained.push_back(*std::move(results[item]));
  }
  return trained;
}

}  // namespace asymserve
