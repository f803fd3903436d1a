#include "server/reloader.h"

#include <gtest/gtest.h>

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

  const TempDir directory_;
  const std::string path_ = Written();
  ReloadMetrics metrics_;
  int reads_ = 0;
  absl::Status result_;
  Reloader reloader_{"test",
                     {path_},
                     [this] {
                       ++reads_;
                       return result_;
                     },
                     metrics_};
};

TEST_F(ReloaderTest, ReadsOnceAfterAChangeAndWhenToldTo) {
  reloader_.Poll(false);
  EXPECT_EQ(reads_, 0);
  WriteFile(path_, "another");
  reloader_.Poll(false);
  EXPECT_EQ(reads_, 0) << "looked twice within a second";
  reloader_.Poll(true);
  EXPECT_EQ(reads_, 1);
  reloader_.Poll(true);
  EXPECT_EQ(reads_, 2);
  EXPECT_EQ(metrics_.done.value(), 2u);
  EXPECT_EQ(metrics_.failed.value(), 0u);
}

TEST_F(ReloaderTest, TriesAgainAfterAFailureButCountsItOnce) {
  result_ = absl::InvalidArgumentError("broken");
  WriteFile(path_, "broken");
  const auto pass = [this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));
    reloader_.Poll(false);
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

}  // namespace
}  // namespace asymserve::testing
