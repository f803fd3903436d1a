#include "engine/quality/text_source.h"

#include <gtest/gtest.h>

#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using testing::IsOk;

class TextSourceTest : public ::testing::Test {
 protected:
  TextSourceTest() {
    auto tokenizer = Tokenizer::Create(testing::ToyTokenizerSpec(testing::kToyLeastVocabulary));
    EXPECT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
  }

  /// A file of these bytes, seen from `offset` on.
  TextSource Source(const std::string& name, std::string_view contents, int64_t offset = 0) {
    const std::string path = directory_.Path(name);
    testing::WriteFile(path, contents);
    return {.name = name + "@" + std::to_string(offset), .path = path, .offset = offset};
  }

  std::string Text(const TextSource& source) {
    const auto text = ReadText(source);
    EXPECT_THAT(text, IsOk());
    return text.value_or("");
  }

  const testing::TempDir directory_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TextSourceTest, AnArgumentIsAFileAndPerhapsAnOffset) {
  const struct {
    const char* argument;
    const char* path;
    int64_t offset;
  } kCases[] = {{"a/b.txt", "a/b.txt", 0},
                {"a/b.txt@100000", "a/b.txt", 100000},
                {"me@home/b.txt@0", "me@home/b.txt", 0}};
  for (const auto& one : kCases) {
    const auto source = ParseTextSource(one.argument);
    ASSERT_THAT(source, IsOk());
    EXPECT_EQ(source->name, one.argument);
    EXPECT_EQ(source->path, one.path);
    EXPECT_EQ(source->offset, one.offset);
  }
}

TEST_F(TextSourceTest, ABadArgumentIsRefusedByName) {
  for (const char* argument : {"", "@5", "a@", "a@x", "a@-1", "a@1x", "a@ 1", "a@1.5",
                               "a@99999999999999999999", "me@home/b.txt"}) {
    EXPECT_THAT(ParseTextSource(argument),
                FailsWith(StatusCode::kInvalidArgument, "text '" + std::string(argument) + "'"));
  }
}

TEST_F(TextSourceTest, AnOffsetCountsCharactersNotBytes) {
  const std::string text = "h\u00e9\u20ac\U0001F600z";
  EXPECT_EQ(Text(Source("t.txt", text)), text);
  EXPECT_EQ(Text(Source("t.txt", text, 1)), text.substr(1));
  EXPECT_EQ(Text(Source("t.txt", text, 2)), "\u20ac\U0001F600z");
  EXPECT_EQ(Text(Source("t.txt", text, 4)), "z");
  EXPECT_THAT(ReadText(Source("t.txt", text, 5)),
              FailsWith(StatusCode::kInvalidArgument, "t.txt@5: the file has 5 characters"));
}

TEST_F(TextSourceTest, ProblemsBecomeQuestionsAndAnswersFromTheirIndexOn) {
  const char* const lines =
      "{\"question\": \"1\\u20ac+1?\", \"answer\": \"2\"}\r\n"
      "\n"
      "{\"answer\": \"b\\nc\", \"question\": \"a\", \"more\": [1]}\n"
      "{\"question_id\": 3, \"turns\": [\"first\", \"second\"]}";
  EXPECT_EQ(Text(Source("p.jsonl", lines)),
            "Question: 1\u20ac+1?\nAnswer: 2\n\nQuestion: a\nAnswer: b\nc\n\nfirst");
  EXPECT_EQ(Text(Source("p.jsonl", lines, 2)), "first");
  EXPECT_THAT(ReadText(Source("p.jsonl", lines, 3)),
              FailsWith(StatusCode::kInvalidArgument, "p.jsonl@3: the file has 3 records"));
}

TEST_F(TextSourceTest, ProblemsKeepQuestionAndAnswerApart) {
  const char* const lines =
      "{\"question\": \"a\", \"answer\": \"b\"}\n"
      "{\"turns\": [\"first\"]}\n"
      "{\"question\": \"c\", \"answer\": \"d\"}\n"
      "{\"question\": \"e\", \"answer\": \"f\"}\n";
  const auto problems = ReadProblems(Source("p.jsonl", lines), 3);
  ASSERT_THAT(problems, IsOk());
  ASSERT_EQ(problems->size(), 2u);
  EXPECT_EQ(ProblemText((*problems)[0]), "Question: a\nAnswer: b");
  EXPECT_EQ(ProblemText((*problems)[1]), "Question: c\nAnswer: d");
  const auto later = ReadProblems(Source("p.jsonl", lines, 3), 9);
  ASSERT_THAT(later, IsOk());
  ASSERT_EQ(later->size(), 1u);
  EXPECT_EQ(later->front().question, "e");
  const auto none = ReadProblems(Source("p.txt", lines), 3);
  ASSERT_THAT(none, IsOk());
  EXPECT_TRUE(none->empty());
}

TEST_F(TextSourceTest, ABadFileIsRefusedWithItsPlace) {
  const std::string good = "{\"question\": \"q\", \"answer\": \"a\"}\n";
  const struct {
    const char* name;
    std::string contents;
    const char* message;
  } kCases[] = {
      {"a.txt", "ab\xC3(", "a.txt: invalid UTF-8 at byte 2"},
      {"a.jsonl", good + "{\"question\": \"\xFF\"}", "a.jsonl: invalid UTF-8 at byte 47"},
      {"a.jsonl", good + "{\"question\": ", "a.jsonl:2 is not valid JSON"},
      {"a.jsonl", good + "\n[1]", "a.jsonl:3 is no JSON object"},
      {"a.jsonl", "{\"question\": \"q\"}", "a.jsonl:1: has neither question and answer nor turns"},
      {"a.jsonl", "{\"question\": 5, \"answer\": \"a\"}", "a.jsonl:1: question is no string"},
      {"a.jsonl", "{\"turns\": []}", "a.jsonl:1: turns is no list with an element"},
      {"a.jsonl", "{\"turns\": [null]}", "a.jsonl:1: turns[0] is no string"},
      {"a.jsonl", "\n \n", "the file has 0 records"},
      {"a.txt", "", "is empty"},
  };
  for (const auto& one : kCases) {
    EXPECT_THAT(ReadText(Source(one.name, one.contents)),
                FailsWith(StatusCode::kInvalidArgument, one.message));
  }
  EXPECT_THAT(ReadText({.name = "x", .path = directory_.Path("x")}),
              FailsWith(StatusCode::kNotFound, directory_.Path("x")));
  EXPECT_THAT(ReadText({.name = "x", .path = directory_.path().string()}),
              FailsWith(StatusCode::kInvalidArgument, "is not a regular file"));
}

TEST_F(TextSourceTest, TokensAreTheFirstOfTheWholeText) {
  std::string text;
  while (text.size() < 20000) text += "the first of the \u20ac others, ";
  const auto all = tokenizer_->Encode(text, {.add_special = false});
  ASSERT_THAT(all, IsOk());
  for (const int32_t count : {1, 77, 2048, static_cast<int32_t>(all->size())}) {
    const auto ids = ReadTokens(Source("t.txt", text), *tokenizer_, count);
    ASSERT_THAT(ids, IsOk());
    EXPECT_EQ(*ids, std::vector<int32_t>(all->begin(), all->begin() + count));
  }
}

TEST_F(TextSourceTest, ATextThatIsTooShortSaysHowManyTokensItHas) {
  EXPECT_THAT(ReadTokens(Source("t.txt", "xyzxyz", 1), *tokenizer_, 6),
              FailsWith(StatusCode::kInvalidArgument, "t.txt@1: has 5 tokens from there, need 6"));
}

}  // namespace
}  // namespace asymserve
