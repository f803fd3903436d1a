#include "engine/quality/linear_algebra.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"

namespace asymserve {
namespace {

constexpr int kMaxSweeps = 50;  // convergence is quadratic: about 8 are needed

double OffDiagonalSquares(const SquareMatrix& a) {
  double sum = 0;
  for (int32_t i = 0; i < a.n; ++i) {
    for (int32_t j = 0; j < i; ++j) sum += 2 * a.at(i, j) * a.at(i, j);
  }
  return sum;
}

double Squares(const SquareMatrix& a) {
  double sum = 0;
  for (const double value : a.values) sum += value * value;
  return sum;
}

void RotateRows(SquareMatrix& a, int32_t p, int32_t q, double c, double s) {
  double* row_p = &a.at(p, 0);
  double* row_q = &a.at(q, 0);
  for (int32_t k = 0; k < a.n; ++k) {
    const double x = row_p[k];
    const double y = row_q[k];
    row_p[k] = c * x - s * y;
    row_q[k] = s * x + c * y;
  }
}

void RotateColumns(SquareMatrix& a, int32_t p, int32_t q, double c, double s) {
  for (int32_t k = 0; k < a.n; ++k) {
    const double x = a.at(k, p);
    const double y = a.at(k, q);
    a.at(k, p) = c * x - s * y;
    a.at(k, q) = s * x + c * y;
  }
}

/// Makes a(p, q) zero; the rows of `vectors` turn with it.
void Rotate(SquareMatrix& a, SquareMatrix& vectors, int32_t p, int32_t q) {
  const double off = a.at(p, q);
  if (off == 0) return;
  const double theta = (a.at(q, q) - a.at(p, p)) / (2 * off);
  const double sign = theta >= 0 ? 1.0 : -1.0;
  const double t = sign / (std::fabs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(t * t + 1);
  const double s = t * c;
  RotateRows(a, p, q, c, s);
  RotateColumns(a, p, q, c, s);
  a.at(p, q) = a.at(q, p) = 0;
  RotateRows(vectors, p, q, c, s);
}

}  // namespace

SquareMatrix Product(const SquareMatrix& a, const SquareMatrix& b) {
  ASYMSERVE_CHECK(a.n == b.n);
  SquareMatrix product(a.n);
  for (int32_t i = 0; i < a.n; ++i) {
    for (int32_t k = 0; k < a.n; ++k) {
      for (int32_t j = 0; j < a.n; ++j) product.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return product;
}

SquareMatrix Transpose(const SquareMatrix& a) {
  SquareMatrix transpose(a.n);
  for (int32_t i = 0; i < a.n; ++i) {
    for (int32_t j = 0; j < a.n; ++j) transpose.at(j, i) = a.at(i, j);
  }
  return transpose;
}

absl::StatusOr<SquareMatrix> Cholesky(const SquareMatrix& m) {
  SquareMatrix a(m.n);
  for (int32_t i = 0; i < m.n; ++i) {
    for (int32_t j = 0; j <= i; ++j) {
      double left = m.at(i, j);
      for (int32_t k = 0; k < j; ++k) left -= a.at(i, k) * a.at(j, k);
      if (j < i) {
        a.at(i, j) = left / a.at(j, j);
        continue;
      }
      if (!(left > 0) || !std::isfinite(left)) {
        return absl::InvalidArgumentError(
            absl::StrCat("the matrix is not positive definite: pivot ", i, " is ", left));
      }
      a.at(i, i) = std::sqrt(left);
    }
  }
  return a;
}

Eigensystem SymmetricEigensystem(const SquareMatrix& m) {
  SquareMatrix a = m;
  SquareMatrix vectors(m.n);  // in rows
  for (int32_t i = 0; i < m.n; ++i) vectors.at(i, i) = 1;
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  const double enough = Squares(a) * kEpsilon * kEpsilon * m.n;
  for (int sweep = 0; sweep < kMaxSweeps && OffDiagonalSquares(a) > enough; ++sweep) {
    for (int32_t p = 0; p < m.n; ++p) {
      for (int32_t q = p + 1; q < m.n; ++q) Rotate(a, vectors, p, q);
    }
  }
  std::vector<int32_t> order(static_cast<size_t>(m.n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t i, int32_t j) { return a.at(i, i) > a.at(j, j); });
  Eigensystem system;
  system.vectors = SquareMatrix(m.n);
  for (int32_t j = 0; j < m.n; ++j) {
    const int32_t from = order[static_cast<size_t>(j)];
    system.values.push_back(a.at(from, from));
    int32_t largest = 0;
    for (int32_t i = 1; i < m.n; ++i) {
      if (std::fabs(vectors.at(from, i)) > std::fabs(vectors.at(from, largest))) largest = i;
    }
    const double sign = vectors.at(from, largest) < 0 ? -1 : 1;
    for (int32_t i = 0; i < m.n; ++i) system.vectors.at(i, j) = sign * vectors.at(from, i);
  }
  return system;
}

}  // namespace asymserve
