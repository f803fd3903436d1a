#include "engine/base/status.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"

#include "engine/base/check.h"

namespace asymserve {
namespace {

absl::Status Fail(int code) {
  return absl::Status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
}

absl::StatusOr<std::unique_ptr<int>> Make(int value) {
  if (value < 0) return absl::OutOfRangeError("negative");
  return std::make_unique<int>(value);
}

absl::StatusOr<int> Sum(int a, int b, int code) {
  ASYMSERVE_RETURN_IF_ERROR(Fail(code));
  ASYMSERVE_ASSIGN_OR_RETURN(const auto first, Make(a));
  ASYMSERVE_ASSIGN_OR_RETURN(const auto second, Make(b));
  return *first + *second;
}

TEST(StatusTest, TheMacrosReturnTheFirstErrorOrUnwrapTheValue) {
  EXPECT_EQ(*Sum(1, 2, 0), 3);
  EXPECT_EQ(Sum(1, -2, 0).status(), absl::OutOfRangeError("negative"));
  EXPECT_EQ(Sum(-1, 2, 3).status(), absl::InvalidArgumentError("why"));
}

TEST(StatusTest, AnnotatePutsAPrefixAndKeepsTheCode) {
  EXPECT_EQ(Annotate(absl::NotFoundError("gone"), "file x"), absl::NotFoundError("file x: gone"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "file x").ok());
}

TEST(CheckDeathTest, ABrokenInvariantEndsTheProcessAndNamesItself) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(ASYMSERVE_CHECK(1 + 1 == 3),
               "status_test.cc:[0-9]+: broken invariant: 1 \\+ 1 == 3");
}

}  // namespace
}  // namespace asymserve
