#include "server/request_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "asymserve/v1/inference.pb.h"
#include "google/protobuf/stubs/logging.h"

#include "tests/support/status_matchers.h"

namespace asymserve::testing {
namespace {

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

grpc::ByteBuffer Bytes(const std::string& wire) {
  const grpc::Slice slice(wire);
  return {&slice, 1};
}

/// A length-delimited field.
std::string Field(int number, const std::string& value) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(value.size())} + value;
}

TEST(RequestDecoderTest, ReadsWhatProtobufWrites) {
  v1::GenerateRequest written;
  written.set_prompt("grüße");
  written.mutable_stop()->add_strings("\n\n");
  (*written.mutable_sampling()->mutable_logit_bias())[7] = -1.5f;
  v1::GenerateRequest read;
  ASSERT_THAT(DecodeRequest(Bytes(written.SerializeAsString()), read), IsOk());
  EXPECT_EQ(read.SerializeAsString(), written.SerializeAsString());
}

struct Broken {
  const char* name;
  std::string wire;
  const char* message;
};

class BrokenRequestTest : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenRequestTest, IsRefusedWithTheNameOfTheField) {
  v1::ChatRequest chat;
  EXPECT_THAT(DecodeRequest(Bytes(GetParam().wire), chat), FailsWith(kInvalid, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Wire, BrokenRequestTest,
    ::testing::Values(
        Broken{"InvalidUtf8", Field(1, Field(1, "user") + Field(2, "ok \xC3\x28")),
               "messages[0].content: invalid UTF-8 at byte 3"},
        Broken{"InvalidUtf8InALaterElement",
               Field(1, Field(1, "user")) + Field(1, Field(1, "\xED\xA0\x80")),
               "messages[1].role: invalid UTF-8 at byte 0"},
        Broken{"InvalidUtf8InAnInnerList", Field(4, Field(3, "ok") + Field(3, "\xFF")),
               "stop.strings[1]: invalid UTF-8 at byte 0"},
        Broken{"MalformedPackedNumbers", Field(4, Field(4, "\x01\x80")),
               "stop.token_ids[0]: malformed varint"},
        Broken{"CutOff", std::string("\x0A\x05user", 6), "messages[0]: cut off, 5 bytes announced"},
        Broken{"CutOffFloat", Field(3, std::string("\x0D\x00\x00", 3)),
               "sampling.temperature: cut off"},
        Broken{"EndlessVarint", std::string(1, '\x38') + std::string(11, '\xFF'),
               "priority: malformed varint"},
        Broken{"HugeLength", std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"),
               "messages[0]: cut off"},
        Broken{"FieldZero", std::string(2, '\0'), "request: malformed field tag"},
        Broken{"InvalidWireType", std::string("\x0F"), "messages[0]: invalid wire type 7"},
        Broken{"StrayEndOfGroup", std::string("\x0C"), "request: unexpected end of group 1"},
        Broken{"OpenGroup", std::string("\xFB\x01"), "unknown field 31: unterminated group"},
        Broken{"DeepGroups", std::string(300, '\x13'), "nested deeper than 100"},
        Broken{"UnknownFieldCutOff", std::string("\xFA\x01\x05") + "ab",
               "unknown field 31: cut off, 5 bytes announced"}),
    [](const auto& broken) { return broken.param.name; });

TEST(RequestDecoderTest, AgreesWithProtobufOnRandomDamage) {
  v1::ChatRequest request;
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content("h\xC3\xA9llo");
  request.mutable_stop()->add_strings("x");
  request.mutable_stop()->add_token_ids(300);
  (*request.mutable_sampling()->mutable_logit_bias())[7] = 2;
  const std::string whole = request.SerializeAsString();
  google::protobuf::SetLogHandler(nullptr);  // it reports each invalid string
  constexpr uint32_t kSeed = 20;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  int broken = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string wire = whole;
    for (uint32_t hits = random() % 3 + 1; hits > 0; --hits) {
      wire[random() % wire.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) wire.resize(random() % wire.size());
    const bool readable = v1::ChatRequest().ParseFromString(wire);
    v1::ChatRequest read;
    const absl::Status status = DecodeRequest(Bytes(wire), read);
    ASSERT_EQ(status.ok(), readable) << "round " << i;
    if (readable) continue;
    ++broken;
    // The walk finds what protobuf refuses, so that the message says more than "not valid".
    EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr("not a valid")))
        << "round " << i << ": " << ::testing::PrintToString(wire);
  }
  EXPECT_GT(broken, 1000);
}

}  // namespace
}  // namespace asymserve::testing
