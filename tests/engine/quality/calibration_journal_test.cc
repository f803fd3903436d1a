#include "engine/quality/calibration_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::IsOk;

class CalibrationJournalTest : public ::testing::Test {
 protected:
  CalibrationJournalTest() { job_[0] = 7; }

  testing::TempDir folder_;
  std::string path_ = folder_.Path("journal");
  Sha256Digest job_ = {};
};

TEST_F(CalibrationJournalTest, EntriesSurviveBitForBit) {
  const double third = 1.0 / 3;
  CalibrationJournal first(path_, job_);
  EXPECT_EQ(first.found(), 0u);
  EXPECT_THAT(first.Put("numbers", std::vector<double>{third, -0.0}), IsOk());
  EXPECT_THAT(first.Put("bytes", std::string("a\0b", 3)), IsOk());
  const CalibrationJournal second(path_, job_);
  EXPECT_EQ(second.found(), 2u);
  EXPECT_THAT(second.Numbers("numbers", 2), ElementsAre(third, -0.0));
  ASSERT_NE(second.Find("bytes"), nullptr);
  EXPECT_EQ(*second.Find("bytes"), std::string("a\0b", 3));
}

TEST_F(CalibrationJournalTest, OfAnotherCountThereIsNoEntry) {
  CalibrationJournal journal(path_, job_);
  EXPECT_THAT(journal.Put("numbers", std::vector<double>{1, 2}), IsOk());
  EXPECT_THAT(journal.Numbers("numbers", 3), IsEmpty());
  EXPECT_THAT(journal.Numbers("others", 2), IsEmpty());
}

TEST_F(CalibrationJournalTest, AnotherJobStartsAnew) {
  EXPECT_THAT(CalibrationJournal(path_, job_).Put("a", "x"), IsOk());
  job_[31] = 1;
  const CalibrationJournal other(path_, job_);
  EXPECT_EQ(other.found(), 0u);
  EXPECT_EQ(other.Find("a"), nullptr);
}

TEST_F(CalibrationJournalTest, ADamagedFileCountsAsAbsent) {
  EXPECT_THAT(CalibrationJournal(path_, job_).Put("a", "some bytes"), IsOk());
  const std::string whole = testing::ReadFile(path_);
  for (size_t size = 0; size < whole.size(); ++size) {
    testing::WriteFile(path_, whole.substr(0, size));
    EXPECT_EQ(CalibrationJournal(path_, job_).found(), 0u) << size;
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    testing::WriteFile(path_, damaged);
    EXPECT_EQ(CalibrationJournal(path_, job_).found(), 0u) << at;
  }
}

TEST_F(CalibrationJournalTest, WithoutAPathItKeepsEntriesToItself) {
  CalibrationJournal journal("", job_);
  EXPECT_THAT(journal.Put("a", "x"), IsOk());
  EXPECT_NE(journal.Find("a"), nullptr);
}

}  // namespace
}  // namespace asymserve
