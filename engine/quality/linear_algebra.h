#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

// Small dense matrices in double, every sum in a fixed order: the same bits on every machine.

namespace asymserve {

/// [n][n], row-major.
struct SquareMatrix {
  SquareMatrix() = default;
  explicit SquareMatrix(int32_t size)
      : n(size), values(static_cast<size_t>(size) * static_cast<size_t>(size)) {}

  double& at(int32_t row, int32_t col) { return values[Index(row, col)]; }
  double at(int32_t row, int32_t col) const { return values[Index(row, col)]; }
  size_t Index(int32_t row, int32_t col) const {
    return static_cast<size_t>(row) * static_cast<size_t>(n) + static_cast<size_t>(col);
  }

  int32_t n = 0;
  std::vector<double> values;
};

SquareMatrix Product(const SquareMatrix& a, const SquareMatrix& b);
SquareMatrix Transpose(const SquareMatrix& a);

/// The lower triangular A with A A^T = m; reads the lower triangle of m. InvalidArgument when m is
/// not positive definite.
absl::StatusOr<SquareMatrix> Cholesky(const SquareMatrix& m);

struct Eigensystem {
  std::vector<double> values;  // [n], largest first
  SquareMatrix vectors;        // column j belongs to values[j]; its largest component is positive
};

/// Of a symmetric matrix, by cyclic Jacobi rotations (Golub and Van Loan, section 8.5).
Eigensystem SymmetricEigensystem(const SquareMatrix& m);

}  // namespace asymserve
