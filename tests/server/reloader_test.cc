#include "server/reloader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/support/file_io.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

TEST(FileWatchTest, SeesWritesReplacementsRemovalsAndNothingElse) {
  const TempDir directory;
  const std::string path = directory.Path("file");
  WriteFile(path, "one");
  FileWatch watch({path, ""});
  EXPECT_FALSE(watch.Changed());
  WriteFile(path, "three");
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
  WriteFile(directory.Path("new"), "three");
  std::filesystem::rename(directory.Path("new"), path);
  EXPECT_TRUE(watch.Changed());
  std::filesystem::remove(path);
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

TEST(FileWatchTest, SeesThatALinkedFolderIsAnother) {
  const TempDir directory;
  for (const char* folder : {"a", "b"}) {
    std::filesystem::create_directory(directory.Path(folder));
    WriteFile(directory.Path(std::string(folder) + "/file"), "same");
  }
  std::filesystem::create_directory_symlink("a", directory.Path("current"));
  FileWatch watch({directory.Path("current/file")});
  std::filesystem::create_directory_symlink("b", directory.Path("next"));
  std::filesystem::rename(directory.Path("next"), directory.Path("current"));
  EXPECT_TRUE(watch.Changed());
}

class ReloaderTest : public ::testing::Test {
 protected:
  /// A new file.
  std::string Written() const {
    WriteFile(directory_.Path("file"), "one");
    return directory_.Path("file");
  }

  void Poll(bool now) {
    ReloadReport report;
    reloader_.Poll(now, report);
  }

  const TempDir directory_;
  const std::string path_ = Written();
  ReloadMetrics metrics_;
  int reads_ = 0;
  absl::Status result_;
  Reloader reloader_{"test",
                     {path_},
                     [this](ReloadReport&) {
                       ++reads_;
                       return result_;
                     },
                     metrics_};
};

TEST_F(ReloaderTest, ReadsOnceAfterAChangeAndWhenToldTo) {
  using Clock = std::chrono::steady_clock;
  Poll(false);
  EXPECT_EQ(reads_, 0);
  int before = 0;
  bool within_a_second = false;  // a busy machine may take longer: then again
  for (int attempt = 0; attempt < 10 && !within_a_second; ++attempt) {
    const Clock::time_point begin = Clock::now();
    Poll(true);
    before = reads_;
    WriteFile(path_, "another");
    Poll(false);
    within_a_second = Clock::now() - begin < std::chrono::seconds(1);
  }
  ASSERT_TRUE(within_a_second);
  EXPECT_EQ(reads_, before) << "looked twice within a second";
  Poll(true);
  EXPECT_EQ(reads_, before + 1);
  Poll(true);
  EXPECT_EQ(reads_, before + 2);
  EXPECT_EQ(metrics_.done.value(), static_cast<uint64_t>(reads_));
  EXPECT_EQ(metrics_.failed.value(), 0u);
}

TEST_F(ReloaderTest, TriesAgainAfterAFailureButCountsItOnce) {
  result_ = absl::InvalidArgumentError("broken");
  WriteFile(path_, "broken");
  const auto pass = [this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));
    Poll(false);
  };
  pass();
  EXPECT_EQ(reads_, 1);
  pass();
  EXPECT_EQ(reads_, 2);
  EXPECT_EQ(metrics_.failed.value(), 1u);
  result_ = absl::OkStatus();
  pass();
  EXPECT_EQ(metrics_.done.value(), 1u);
  pass();
  EXPECT_EQ(reads_, 3);
}

TEST(ReloadsTest, WithoutPathsItReadsOnlyWhenAskedAndReportsEachOutcome) {
  const TempDir directory;
  WriteFile(directory.Path("file"), "one");
  ReloadMetrics metrics;
  const absl::Status result = absl::InvalidArgumentError("broken");
  int asked = 0;
  Reloads reloads;
  reloads.Add({"watched",
               {directory.Path("file")},
               [](ReloadReport&) { return absl::OkStatus(); },
               metrics});
  reloads.Add({"asked",
               {},
               [&](ReloadReport& report) {
                 ++asked;
                 report.changed = {"a: 1 -> 2"};
                 return result;
               },
               metrics});
  EXPECT_TRUE(reloads.Poll(false).empty());
  const std::vector<Reloads::Outcome> outcomes = reloads.Poll(true);
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].what, "watched");
  EXPECT_TRUE(outcomes[0].status.ok());
  EXPECT_EQ(outcomes[1].what, "asked");
  EXPECT_EQ(outcomes[1].status.message(), "broken");
  EXPECT_EQ(outcomes[1].report.changed, std::vector<std::string>{"a: 1 -> 2"});
  EXPECT_TRUE(outcomes[0].report.changed.empty());
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_TRUE(reloads.Poll(false).empty()) << "a failure is tried again by itself";
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace asymserve::testing
