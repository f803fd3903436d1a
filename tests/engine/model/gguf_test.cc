#include "engine/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using testing::GgufWriter;
using testing::IsOk;
using testing::StringBytes;
using testing::U32Bytes;
using testing::U64Bytes;
using enum absl::StatusCode;

constexpr uint32_t kStringType = 8;
constexpr uint32_t kArrayType = 9;

/// Bytes in a heap block of exactly their size, so that a read beyond them is found.
class Bytes {
 public:
  explicit Bytes(const std::string& text) : size_(text.size()), data_(new std::byte[text.size()]) {
    std::memcpy(data_.get(), text.data(), size_);
  }
  std::span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<std::byte[]> data_;
};

/// A file with a few keys and tensors, whose last byte belongs to a tensor.
GgufWriter SmallFile() {
  GgufWriter writer;
  writer.AddString("name", "small");
  writer.AddU32("answer", 42);
  const std::vector<std::string> words = {"one", "", "three"};
  writer.AddStrings("words", words);
  const std::vector<float> floats = {0.5f, -2};
  writer.AddF32s("floats", floats);
  writer.AddTensor("vector", {3}, DType::kF32, std::string(12, '\1'));
  writer.AddTensor("matrix", {32, 2}, DType::kQ8_0, std::string(68, '\2'));
  return writer;
}

TEST(GgufTest, FindsKeysAndTensors) {
  const Bytes file(SmallFile().Build());
  const auto gguf = Gguf::Parse(file.span());
  ASSERT_THAT(gguf, IsOk());
  EXPECT_EQ(*gguf->String("name"), "small");
  EXPECT_EQ(*gguf->Integer("answer"), 42);
  EXPECT_THAT(*gguf->Strings("words"), ElementsAre("one", "", "three"));
  EXPECT_THAT(*gguf->Floats("floats"), ElementsAre(0.5f, -2.0f));
  ASSERT_EQ(gguf->tensors().size(), 2u);
  const GgufTensor* matrix = gguf->FindTensor("matrix");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->dtype, DType::kQ8_0);
  EXPECT_THAT(matrix->extents, ElementsAre(32, 2, 1, 1));
  ASSERT_EQ(matrix->data.size(), 68u);
  EXPECT_EQ(matrix->data.front(), std::byte{2});
  EXPECT_EQ(matrix->data.data() + 68, file.span().data() + file.span().size());
  EXPECT_EQ(gguf->FindTensor("matri"), nullptr);
  EXPECT_EQ(gguf->Find("nam"), nullptr);
}

TEST(GgufTest, ReadsIntegersOfEveryWidth) {
  GgufWriter writer;
  writer.AddRaw("u8", 0, "\xFF");
  writer.AddRaw("i8", 1, "\xFF");
  writer.AddRaw("u16", 2, "\xFE\xFF");
  writer.AddRaw("i16", 3, "\xFE\xFF");
  writer.AddRaw("u32", 4, U32Bytes(0xFFFFFFFF));
  writer.AddRaw("i32", 5, U32Bytes(0xFFFFFFFF));
  writer.AddRaw("u64", 10, U64Bytes(1ull << 62));
  writer.AddRaw("u64 too large", 10, U64Bytes(1ull << 63));
  writer.AddRaw("i64", 11, U64Bytes(1ull << 63));
  const Bytes file(writer.Build());
  const auto gguf = Gguf::Parse(file.span());
  ASSERT_THAT(gguf, IsOk());
  EXPECT_EQ(*gguf->Integer("u8"), 255);
  EXPECT_EQ(*gguf->Integer("i8"), -1);
  EXPECT_EQ(*gguf->Integer("u16"), 65534);
  EXPECT_EQ(*gguf->Integer("i16"), -2);
  EXPECT_EQ(*gguf->Integer("u32"), 4294967295);
  EXPECT_EQ(*gguf->Integer("i32"), -1);
  EXPECT_EQ(*gguf->Integer("u64"), int64_t{1} << 62);
  EXPECT_EQ(*gguf->Integer("i64"), INT64_MIN);
  EXPECT_THAT(gguf->Integer("u64 too large"), FailsWith(kInvalidArgument, "'u64 too large'"));
}

TEST(GgufTest, ReadsFloatsAndBools) {
  GgufWriter writer;
  writer.AddF32("f32", 1.5f);
  writer.AddRaw("f64", 12, U64Bytes(0x3FF8000000000000));
  writer.AddRaw("f64 too large", 12, U64Bytes(0x7FE0000000000000));
  writer.AddRaw("nan", 6, U32Bytes(0x7FC00000));
  writer.AddBool("yes", true);
  writer.AddRaw("maybe", 7, "\2");
  const Bytes file(writer.Build());
  const auto gguf = Gguf::Parse(file.span());
  ASSERT_THAT(gguf, IsOk());
  EXPECT_EQ(*gguf->Float("f32"), 1.5f);
  EXPECT_EQ(*gguf->Float("f64"), 1.5f);
  EXPECT_THAT(gguf->Float("f64 too large"), FailsWith(kInvalidArgument, "'f64 too large'"));
  EXPECT_THAT(gguf->Float("nan"), FailsWith(kInvalidArgument, "'nan' is not finite"));
  EXPECT_TRUE(*gguf->Bool("yes"));
  EXPECT_THAT(gguf->Bool("maybe"), FailsWith(kInvalidArgument, "'maybe' is 2"));
}

TEST(GgufTest, NamesTheKeyOfAnotherType) {
  const Bytes file(SmallFile().Build());
  const auto gguf = Gguf::Parse(file.span());
  ASSERT_THAT(gguf, IsOk());
  EXPECT_THAT(gguf->Integer("name"), FailsWith(kInvalidArgument, "'name' is string"));
  EXPECT_THAT(gguf->Integer("words"), FailsWith(kInvalidArgument, "an array of 3 string"));
  EXPECT_THAT(gguf->Float("answer"), FailsWith(kInvalidArgument, "'answer' is u32"));
  EXPECT_THAT(gguf->Bool("answer"), FailsWith(kInvalidArgument, "'answer' is u32"));
  EXPECT_THAT(gguf->String("words"), FailsWith(kInvalidArgument, "'words'"));
  EXPECT_THAT(gguf->Strings("floats"), FailsWith(kInvalidArgument, "'floats'"));
  EXPECT_THAT(gguf->Strings("name"), FailsWith(kInvalidArgument, "'name'"));
  EXPECT_THAT(gguf->Integers("floats"), FailsWith(kInvalidArgument, "'floats'"));
  EXPECT_THAT(gguf->Floats("words"), FailsWith(kInvalidArgument, "'words'"));
  EXPECT_THAT(gguf->Integer("absent"), FailsWith(kNotFound, "'absent' is missing"));
}

TEST(GgufTest, ReadsVersionTwoLikeThree) {
  GgufWriter writer = SmallFile();
  writer.version = 2;
  const Bytes file(writer.Build());
  EXPECT_THAT(Gguf::Parse(file.span()), IsOk());
}

TEST(GgufTest, TakesTheAlignmentOfTheFile) {
  GgufWriter writer;
  writer.alignment = 256;
  writer.AddU32("general.alignment", 256);
  writer.AddTensor("a", {1}, DType::kF32, "AAAA");
  writer.AddTensor("b", {1}, DType::kF32, "BBBB");
  const Bytes file(writer.Build());
  const auto gguf = Gguf::Parse(file.span());
  ASSERT_THAT(gguf, IsOk());
  EXPECT_EQ(gguf->FindTensor("b")->data.front(), std::byte{'B'});
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string whole = SmallFile().Build();
  for (size_t size = 0; size < whole.size(); ++size) {
    const Bytes file(whole.substr(0, size));
    EXPECT_THAT(Gguf::Parse(file.span()), FailsWith(kInvalidArgument, "")) << size << " bytes";
  }
}

struct BrokenFile {
  const char* description;
  std::function<void(GgufWriter&)> damage;
  absl::StatusCode code;
  const char* message;
};

std::string ArrayOf(uint32_t element, uint64_t count, const std::string& elements) {
  return U32Bytes(element) + U64Bytes(count) + elements;
}

std::string DeepArray(int depth) {
  if (depth == 0) return ArrayOf(0, 0, "");
  return ArrayOf(kArrayType, 1, DeepArray(depth - 1));
}

const BrokenFile kBrokenFiles[] = {
    {"a version of the future", [](GgufWriter& w) { w.version = 4; }, kUnimplemented, "version 4"},
    {"a big-endian file", [](GgufWriter& w) { w.version = 0x03000000; }, kUnimplemented,
     "big-endian"},
    {"more keys than there are", [](GgufWriter& w) { w.stated_keys = 9; }, kInvalidArgument,
     "key "},
    {"a huge number of keys", [](GgufWriter& w) { w.stated_keys = INT64_MAX; }, kInvalidArgument,
     "9223372036854775807 keys"},
    {"a huge number of tensors", [](GgufWriter& w) { w.stated_tensors = INT64_MAX; },
     kInvalidArgument, "9223372036854775807 tensors"},
    {"a key twice", [](GgufWriter& w) { w.AddU32("answer", 43); }, kInvalidArgument,
     "key 'answer' appears twice"},
    {"an empty key", [](GgufWriter& w) { w.AddU32("", 1); }, kInvalidArgument, "key 4 has a name"},
    {"an endless key", [](GgufWriter& w) { w.AddU32(std::string(5000, 'k'), 1); }, kInvalidArgument,
     "key 4 has a name of 5000 bytes"},
    {"an unknown value type", [](GgufWriter& w) { w.AddRaw("k", 13, "xxxx"); }, kInvalidArgument,
     "'k' has unknown type 13"},
    {"a string past the end", [](GgufWriter& w) { w.AddRaw("k", kStringType, U64Bytes(1 << 20)); },
     kInvalidArgument, "'k' is 1048576 bytes long"},
    {"a string of nearly 2^64 bytes",
     [](GgufWriter& w) { w.AddRaw("k", kStringType, U64Bytes(UINT64_MAX - 4)); }, kInvalidArgument,
     "'k' is 18446744073709551611 bytes long"},
    {"an array of unknown elements",
     [](GgufWriter& w) { w.AddRaw("k", kArrayType, ArrayOf(99, 1, "x")); }, kInvalidArgument,
     "'k' has elements of unknown type 99"},
    {"an array whose size overflows",
     [](GgufWriter& w) { w.AddRaw("k", kArrayType, ArrayOf(10, (1ull << 61) + 1, "x")); },
     kInvalidArgument, "'k' claims 2305843009213693953 elements"},
    {"an array of too many strings",
     [](GgufWriter& w) { w.AddRaw("k", kArrayType, ArrayOf(kStringType, 1 << 30, "x")); },
     kInvalidArgument, "'k' claims 1073741824 elements"},
    {"a string in an array past the end",
     [](GgufWriter& w) {
       w.AddRaw("k", kArrayType, ArrayOf(kStringType, 2, StringBytes("a") + U64Bytes(1 << 20)));
     },
     kInvalidArgument, "'k' is 1048576 bytes long"},
    {"arrays in arrays in arrays", [](GgufWriter& w) { w.AddRaw("k", kArrayType, DeepArray(8)); },
     kInvalidArgument, "'k' nests arrays"},
    {"an alignment of zero", [](GgufWriter& w) { w.AddU32("general.alignment", 0); },
     kInvalidArgument, "general.alignment is 0"},
    {"an alignment that is no power of two",
     [](GgufWriter& w) { w.AddU32("general.alignment", 48); }, kInvalidArgument,
     "general.alignment is 48"},
    {"an alignment that is no number",
     [](GgufWriter& w) { w.AddString("general.alignment", "32"); }, kInvalidArgument,
     "'general.alignment' is string"},
    {"a tensor twice", [](GgufWriter& w) { w.AddTensor("vector", {1}, DType::kF32, "xxxx"); },
     kInvalidArgument, "tensor 'vector' appears twice"},
    {"a tensor without a name", [](GgufWriter& w) { w.AddTensor("", {1}, DType::kF32, "xxxx"); },
     kInvalidArgument, "tensor 2 has a name of 0 bytes"},
    {"a tensor of no dimensions", [](GgufWriter& w) { w.AddRawTensor("t", {}, 0, 0); },
     kInvalidArgument, "'t' has 0 dimensions"},
    {"a tensor of five dimensions",
     [](GgufWriter& w) {
       w.AddRawTensor("t", {1, 1, 1, 1, 1}, 0, 0);
     },
     kInvalidArgument, "'t' has 5 dimensions"},
    {"an empty tensor",
     [](GgufWriter& w) {
       w.AddRawTensor("t", {4, 0}, 0, 0);
     },
     kInvalidArgument, "'t' has extent 0 in dimension 1"},
    {"a negative extent", [](GgufWriter& w) { w.AddRawTensor("t", {UINT64_MAX}, 0, 0); },
     kInvalidArgument, "'t' has extent 18446744073709551615"},
    {"extents whose product overflows",
     [](GgufWriter& w) {
       w.AddRawTensor("t", {1ull << 31, 1ull << 31, 4}, 0, 0);
     },
     kInvalidArgument, "'t' has extent 2147483648 in dimension 1, which overflows"},
    {"a quantized type we do not have", [](GgufWriter& w) { w.AddRawTensor("t", {256}, 10, 0); },
     kUnimplemented, "'t' has type 10 (Q2_K)"},
    {"a type that nobody has", [](GgufWriter& w) { w.AddRawTensor("t", {256}, 4000000000, 0); },
     kUnimplemented, "'t' has type 4000000000 (unknown to us)"},
    {"a row that does not fit its block", [](GgufWriter& w) { w.AddRawTensor("t", {33}, 8, 0); },
     kInvalidArgument, "'t' has rows of 33 elements, Q8_0 needs a multiple of 32"},
    {"a misaligned offset", [](GgufWriter& w) { w.AddRawTensor("t", {1}, 0, 8); }, kInvalidArgument,
     "'t' has offset 8"},
    {"an offset past the end", [](GgufWriter& w) { w.AddRawTensor("t", {1}, 0, 1 << 20); },
     kInvalidArgument, "'t' has 4 bytes at offset 1048576"},
    {"an offset near 2^64", [](GgufWriter& w) { w.AddRawTensor("t", {1}, 0, UINT64_MAX - 31); },
     kInvalidArgument, "'t' has 4 bytes at offset 18446744073709551584"},
    {"data past the end", [](GgufWriter& w) { w.AddRawTensor("t", {1000}, 0, 64); },
     kInvalidArgument, "'t' has 4000 bytes at offset 64"},
    {"data over another tensor's", [](GgufWriter& w) { w.AddRawTensor("t", {1}, 0, 32); },
     kInvalidArgument, "overlap"},
    {"a name with control characters",
     [](GgufWriter& w) { w.AddRaw(std::string("\x1B[2J\0k", 6), 13, ""); }, kInvalidArgument,
     R"('\x1b[2J\x00k')"},
};

TEST(GgufTest, RefusesBrokenFilesAndNamesWhatIsWrong) {
  for (const BrokenFile& broken : kBrokenFiles) {
    SCOPED_TRACE(broken.description);
    GgufWriter writer = SmallFile();
    broken.damage(writer);
    const Bytes file(writer.Build());
    EXPECT_THAT(Gguf::Parse(file.span()), FailsWith(broken.code, broken.message));
  }
}

TEST(GgufTest, RefusesAFileOfAnotherKind) {
  const Bytes file("PK\3\4 and the rest of an archive");
  EXPECT_THAT(Gguf::Parse(file.span()), FailsWith(kInvalidArgument, "magic"));
}

}  // namespace
}  // namespace asymserve
