#include "engine/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "engine/model/json_document.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using testing::IsOk;
using testing::U64Bytes;
using enum absl::StatusCode;

/// Parses a copy on the heap of exactly the right size, so that a read beyond it is found. The
/// result's views are dead.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseCopy(const std::string& text) {
  const std::unique_ptr<std::byte[]> copy(new std::byte[text.size()]);
  std::memcpy(copy.get(), text.data(), text.size());
  return ParseSafetensors({copy.get(), text.size()});
}

std::string File(const std::string& header, size_t data_bytes) {
  return U64Bytes(header.size()) + header + std::string(data_bytes, '\7');
}

const char* const kGood =
    R"({"__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]}})";

TEST(SafetensorsTest, ListsTensorsByOffset) {
  const std::string file = File(kGood, 24);
  const auto tensors = ParseSafetensors(std::as_bytes(std::span(file)));
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, DType::kF32);
  EXPECT_EQ((*tensors)[1].name, "b");
  EXPECT_EQ((*tensors)[1].dtype, DType::kBF16);
  EXPECT_THAT((*tensors)[1].shape, ElementsAre(2, 3));
  EXPECT_EQ((*tensors)[1].data.size(), 12u);
  EXPECT_EQ((*tensors)[2].dtype, std::nullopt);
  EXPECT_EQ((*tensors)[2].data.data() + 8, std::as_bytes(std::span(file)).data() + file.size());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string whole = File(kGood, 24);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ParseCopy(whole.substr(0, size)), FailsWith(kInvalidArgument, "")) << size;
  }
}

TEST(SafetensorsTest, RefusesAHeaderThatDoesNotFit) {
  EXPECT_THAT(ParseCopy(U64Bytes(UINT64_MAX) + "{}"), FailsWith(kInvalidArgument, "at most"));
  EXPECT_THAT(ParseCopy(U64Bytes(100) + "{}"), FailsWith(kInvalidArgument, "the file only 2 more"));
}

TEST(SafetensorsTest, NamesTheTensorThatIsWrong) {
  struct Case {
    const char* header;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {"", kInvalidArgument, "not valid JSON"},
      {"[]", kInvalidArgument, "no JSON object"},
      {"{\"a\": ", kInvalidArgument, "not valid JSON"},
      {R"({"a": 1})", kInvalidArgument, "'a' is no JSON object"},
      {R"({"a": {}})", kInvalidArgument, "'a' has no dtype"},
      {R"({"a": {"dtype": 4}})", kInvalidArgument, "'a' has no dtype"},
      {R"({"a": {"dtype": "F4"}})", kUnimplemented, "'a' has dtype 'F4'"},
      {R"({"a": {"dtype": "F32"}})", kInvalidArgument, "'a' has no shape"},
      {R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1]}})", kInvalidArgument,
       "'a' has no shape of at most 8"},
      {R"({"a": {"dtype": "F32", "shape": [-1]}})", kInvalidArgument, "'a' has an extent"},
      {R"({"a": {"dtype": "F32", "shape": [1.5]}})", kInvalidArgument, "'a' has an extent"},
      {R"({"a": {"dtype": "F32", "shape": [0]}})", kInvalidArgument, "'a' has extent 0"},
      {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296]}})", kInvalidArgument,
       "'a' has extent 4294967296, which overflows"},
      {R"({"a": {"dtype": "F32", "shape": [18446744073709551615]}})", kInvalidArgument,
       "'a' has extent 18446744073709551615"},
      {R"({"a": {"dtype": "F32", "shape": [1]}})", kInvalidArgument, "'a' has no data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}})", kInvalidArgument,
       "'a' has no data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})", kInvalidArgument,
       "'a' has no data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})", kInvalidArgument,
       "'a' has data_offsets 4 to 0"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}})", kInvalidArgument,
       "'a' has data_offsets 8 to 12, but the file has 8"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}})", kInvalidArgument,
       "'a' has 4 bytes of data, its shape and dtype need 8"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})", kInvalidArgument,
       "'a' begins at byte 4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", kInvalidArgument,
       "end at byte 4 of 8"},
      {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
           "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
       kInvalidArgument, "'b' begins at byte 4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
           "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
       kInvalidArgument, "twice the key 'a'"},
      {R"({"a": {"dtype": "F32", "dtype": "F16"}})", kInvalidArgument, "twice the key 'dtype'"},
      {R"({"a": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]})", kInvalidArgument, "nested more than"},
      {"{\"\xFF\": 1}", kInvalidArgument, "not valid JSON"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.header);
    EXPECT_THAT(ParseCopy(File(c.header, 8)), FailsWith(c.code, c.message));
  }
}

TEST(JsonDocumentTest, BoundsItsMemoryOnDeeplyNestedText) {
  const std::string text = "{\"a\": " + std::string(1 << 20, '[');
  EXPECT_THAT(ParseJsonObject(text, "it"),
              FailsWith(kInvalidArgument, "it is nested more than 16"));
}

TEST(JsonDocumentTest, AcceptsEqualKeysInDifferentObjects) {
  EXPECT_THAT(ParseJsonObject(R"({"a": {"x": 1}, "b": {"x": 1, "a": 2}})", "it"), IsOk());
}

}  // namespace
}  // namespace asymserve
