#include "engine/runtime/prefix_hash.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/base/sha256.h"

namespace asymserve {
namespace {

/// Chunks of 4 tokens, pages of 2.
class PrefixHashTest : public ::testing::Test {
 protected:
  static constexpr int32_t kChunk = 4;
  static constexpr PrefixScope kScope = {
      .cache = "model A", .tenant = "gold", .chunk_tokens = kChunk, .tail_page_tokens = 2};

  static std::vector<int32_t> Tokens(int32_t count) {
    std::vector<int32_t> tokens;
    for (int32_t token = 1; token <= count; ++token) tokens.push_back(token);
    return tokens;
  }
  static PrefixChain Hash(const PrefixScope& scope, int32_t tokens) {
    return HashPrefix(scope, Tokens(tokens));
  }

  static void ExpectNothingInCommon(const PrefixScope& scope) {
    const PrefixChain chain = Hash(kScope, 11), other = Hash(scope, 11);
    ASSERT_EQ(chain.chunks.size(), 2u);
    ASSERT_EQ(other.chunks.size(), 2u);
    for (const PrefixHash& a : {chain.chunks[0], chain.chunks[1], chain.tail}) {
      for (const PrefixHash& b : {other.chunks[0], other.chunks[1], other.tail}) EXPECT_NE(a, b);
    }
  }
};

// Computed by Python's hashlib from the rule in prefix_hash.h: with
//   scope = SHA-256("asymserve prefix 1\n7\n4\nscheme\n4\n" "model A" "gold")
// (7 and 4 are the lengths of the names, the last 4 the chunk), each part is the SHA-256 of the one
// before, first of all the scope, and of struct.pack("<4i", ...) of its tokens.
TEST_F(PrefixHashTest, IsTheChainThatAnotherProgramComputes) {
  const std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7, 8, -9, 10, INT32_MAX};
  const PrefixChain chain = HashPrefix(kScope, prompt);
  ASSERT_EQ(chain.chunks.size(), 2u);
  EXPECT_EQ(ToHex(chain.chunks[0]),
            "aa836843357c494b7dec766ae87bab6deb70823dbd1a7a02706e51bfde85e543");
  EXPECT_EQ(ToHex(chain.chunks[1]),
            "d30797e602b536debc27a5219ffed9feb7a15ca3d33aae4594919a18df711393");
  EXPECT_EQ(chain.tail_tokens, 10);
  EXPECT_EQ(ToHex(chain.tail), "ac2f2c974087c91315b7df02e61e77947f6c1c7d85177656ba0d80191e33dc76");
}

TEST_F(PrefixHashTest, ATokenChangesItsChunkAndAllThatFollowAndNoneBefore) {
  constexpr int32_t kTokens = 15;  // three chunks, a page of the fourth, and a token
  const PrefixChain chain = Hash(kScope, kTokens);
  ASSERT_EQ(chain.chunks.size(), 3u);
  ASSERT_EQ(chain.tail_tokens, 14);
  for (int32_t token = 0; token < kTokens; ++token) {
    for (const int32_t bit : {1, 1 << 8, 1 << 16, 1 << 24}) {
      SCOPED_TRACE(::testing::Message() << "token " << token << ", bit " << bit);
      std::vector<int32_t> tokens = Tokens(kTokens);
      tokens[static_cast<size_t>(token)] ^= bit;
      const PrefixChain changed = HashPrefix(kScope, tokens);
      ASSERT_EQ(changed.chunks.size(), 3u);
      for (int32_t chunk = 0; chunk < 3; ++chunk) {
        const auto i = static_cast<size_t>(chunk);
        EXPECT_EQ(changed.chunks[i] == chain.chunks[i], chunk < token / kChunk) << chunk;
      }
      EXPECT_EQ(changed.tail == chain.tail, token >= 14);
      EXPECT_EQ(changed.tail_tokens, 14);
    }
  }
}

TEST_F(PrefixHashTest, ModelTenantAndPrecisionChangeEveryPart) {
  PrefixScope scope = kScope;
  scope.cache = "model B";
  ExpectNothingInCommon(scope);
  scope = kScope;
  scope.tenant = "silver";
  ExpectNothingInCommon(scope);
  scope.tenant = "";
  ExpectNothingInCommon(scope);
  scope = kScope;
  scope.precision = KvPrecision::kExact;
  ExpectNothingInCommon(scope);
}

TEST_F(PrefixHashTest, WhatOneNameEndsWithIsNotWhatTheNextBeginsWith) {
  PrefixScope scope = kScope;
  scope.cache = "model Ag";
  scope.tenant = "old";
  ExpectNothingInCommon(scope);
  scope.cache = "model Agold";
  scope.tenant = "";
  ExpectNothingInCommon(scope);
  scope.cache = "";
  scope.tenant = "model Agold";
  ExpectNothingInCommon(scope);
}

// The same tokens, behind nothing: a page's bytes depend on where the chunks begin.
TEST_F(PrefixHashTest, TheChunkChangesWhatItsTokensAlreadySay) {
  PrefixScope scope = kScope;
  scope.chunk_tokens = 8;
  const PrefixChain chain = Hash(kScope, 3), other = Hash(scope, 3);
  ASSERT_EQ(chain.tail_tokens, 2);
  ASSERT_EQ(other.tail_tokens, 2);
  EXPECT_NE(chain.tail, other.tail);
}

TEST_F(PrefixHashTest, NamesWholeChunksAndTheWholePagesOfTheLastOneThatLeaveAToken) {
  struct Expected {
    int32_t tokens, chunks, tail_tokens;
  };
  constexpr Expected kExpected[] = {
      {1, 0, 0}, {2, 0, 0},  // no page is left whole by the token to compute
      {3, 0, 2},             // less than a chunk: only a tail
      {4, 1, 2},             // a chunk that ends the prompt is named, and so are its pages but one
      {5, 1, 0}, {6, 1, 0},  // nothing whole behind the chunk
      {7, 1, 6}, {8, 2, 6}, {9, 2, 0},
  };
  for (const Expected& expected : kExpected) {
    SCOPED_TRACE(expected.tokens);
    const PrefixChain chain = Hash(kScope, expected.tokens);
    EXPECT_EQ(std::ssize(chain.chunks), expected.chunks);
    EXPECT_EQ(chain.tail_tokens, expected.tail_tokens);
    EXPECT_EQ(chain.tail != PrefixHash{}, expected.tail_tokens > 0);
  }
}

TEST_F(PrefixHashTest, APartHasTheSameNameInEveryPromptThatBeginsWithIt) {
  const PrefixChain whole = Hash(kScope, 20);
  ASSERT_EQ(whole.chunks.size(), 5u);
  for (int32_t tokens = 1; tokens <= 20; ++tokens) {
    SCOPED_TRACE(tokens);
    const PrefixChain chain = Hash(kScope, tokens);
    ASSERT_EQ(std::ssize(chain.chunks), tokens / kChunk);
    for (size_t i = 0; i < chain.chunks.size(); ++i) EXPECT_EQ(chain.chunks[i], whole.chunks[i]);
  }
  // The last whole chunk is no predecessor of its own pages.
  EXPECT_EQ(Hash(kScope, 7).tail, Hash(kScope, 8).tail);
  EXPECT_EQ(Hash(kScope, 3).tail, Hash(kScope, 4).tail);
}

TEST_F(PrefixHashTest, ThePartsOfOnePromptHaveDifferentNames) {
  const std::vector<int32_t> prompt(15, 7);  // whose chunks are all the same
  const PrefixChain chain = HashPrefix(kScope, prompt);
  ASSERT_EQ(chain.chunks.size(), 3u);
  ASSERT_EQ(chain.tail_tokens, 14);
  EXPECT_NE(chain.chunks[0], chain.chunks[1]);
  EXPECT_NE(chain.chunks[1], chain.chunks[2]);
  EXPECT_NE(chain.chunks[0], chain.chunks[2]);
  for (const PrefixHash& chunk : chain.chunks) EXPECT_NE(chunk, chain.tail);
}

TEST_F(PrefixHashTest, WhetherTheTailIsNamedChangesNoChunk) {
  PrefixScope scope = kScope;
  scope.tail_page_tokens = 0;
  for (int32_t tokens = 1; tokens <= 12; ++tokens) {
    SCOPED_TRACE(tokens);
    const PrefixChain chain = Hash(scope, tokens);
    EXPECT_EQ(chain.chunks, Hash(kScope, tokens).chunks);
    EXPECT_EQ(chain.tail, PrefixHash{});
    EXPECT_EQ(chain.tail_tokens, 0);
  }
}

}  // namespace
}  // namespace asymserve
