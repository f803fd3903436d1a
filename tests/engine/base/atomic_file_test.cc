#include "engine/base/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using testing::IsOk;

absl::Status Write(const std::string& path, const std::string& content) {
  return WriteFileAtomically(path, std::as_bytes(std::span(content)));
}

std::string Content(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

std::vector<std::string> Names(const testing::TempDir& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(AtomicFileTest, WritesANewFileThatOthersCanReadAndReplacesIt) {
  const testing::TempDir folder;
  const std::string path = folder.Path("profile");
  ASSERT_THAT(Write(path, std::string("a\0b", 3)), IsOk());
  EXPECT_EQ(Content(path), std::string("a\0b", 3));
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0644u);
  ASSERT_THAT(Write(path, ""), IsOk());
  EXPECT_EQ(Content(path), "");
  EXPECT_THAT(Names(folder), ElementsAre("profile"));
}

TEST(AtomicFileTest, NamesThePathWhenTheFolderIsMissing) {
  const testing::TempDir folder;
  EXPECT_THAT(Write(folder.Path("none/profile"), "x"),
              FailsWith(absl::StatusCode::kNotFound, "none/profile"));
}

TEST(AtomicFileTest, RefusesToReplaceAFolderAndLeavesNothingBehind) {
  const testing::TempDir folder;
  std::filesystem::create_directory(folder.path() / "profile");
  const absl::Status status = Write(folder.Path("profile"), "x");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("cannot replace"));
  EXPECT_THAT(Names(folder), ElementsAre("profile"));
}

// A disk that is full behaves as a limit on the size of files does: write comes back short, then
// with an error.
TEST(AtomicFileTest, KeepsTheOldFileWhenThereIsNoRoomForTheNewOne) {
  const testing::TempDir folder;
  const std::string path = folder.Path("profile");
  ASSERT_THAT(Write(path, "old"), IsOk());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Write(path, std::string(5000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("cannot write " + path));
  EXPECT_EQ(Content(path), "old");
  EXPECT_THAT(Names(folder), ElementsAre("profile"));
}

}  // namespace
}  // namespace asymserve
