#include "engine/base/mapped_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace asymserve {
namespace {

using ::testing::HasSubstr;

class MappedFileTest : public ::testing::Test {
 protected:
  MappedFileTest() {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("mapped_file_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~MappedFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static std::string Content(const MappedFile& file) {
    const auto* begin = reinterpret_cast<const char*>(file.bytes().data());
    return std::string(begin, file.bytes().size());
  }

  std::filesystem::path folder_;
};

TEST_F(MappedFileTest, GivesTheBytesOfTheFile) {
  const std::string content("a\0b\xFF", 4);
  const auto file = MappedFile::Open(Write("some", content));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Content(*file), content);
  EXPECT_EQ(file->path(), (folder_ / "some").string());
}

TEST_F(MappedFileTest, NamesAFileThatIsNotThere) {
  const auto file = MappedFile::Open((folder_ / "none").string());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("mapped_file_test_"));
}

TEST_F(MappedFileTest, RefusesAFolderAndAnEmptyFile) {
  const auto folder = MappedFile::Open(folder_.string());
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr("is not a regular file"));
  const auto empty = MappedFile::Open(Write("empty", ""));
  EXPECT_EQ(empty.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(empty.status().message()), HasSubstr("is empty"));
}

TEST_F(MappedFileTest, KeepsTheBytesWhenMovedAndWhenTheFileIsUnlinked) {
  const std::string path = Write("moved", "content");
  auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::remove(path);
  MappedFile second = *std::move(file);
  EXPECT_EQ(Content(second), "content");
  auto other = MappedFile::Open(Write("other", "x"));
  ASSERT_TRUE(other.ok());
  *other = std::move(second);
  EXPECT_EQ(Content(*other), "content");
}

TEST_F(MappedFileTest, BytesStayReadableAfterDiscard) {
  std::string content(3 * 65536 + 17, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 >> 4);
  const auto file = MappedFile::Open(Write("large", content));
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(Content(*file), content);
  const auto bytes = file->bytes();
  file->Discard(bytes);
  file->Discard(bytes.subspan(5, 1));
  file->Discard(bytes.subspan(4097, 65536));
  file->Discard({});
  EXPECT_EQ(Content(*file), content);
}

}  // namespace
}  // namespace asymserve
