#include "server/request_decoder.h"

#include <map>
#include <optional>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/text/utf8.h"

namespace asymserve {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr int kMaxDepth = 100;  // as libprotobuf's own limit

enum WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5
};

class WireReader {
 public:
  explicit WireReader(std::string_view wire) : wire_(wire) {}

  bool empty() const { return wire_.empty(); }

  std::optional<uint64_t> ReadVarint(size_t max_bytes = 10) {
    uint64_t value = 0;
    for (size_t i = 0; i < wire_.size() && i < max_bytes; ++i) {
      const auto byte = static_cast<unsigned char>(wire_[i]);
      value |= static_cast<uint64_t>(byte & 0x7Fu) << (7 * i);
      if ((byte & 0x80u) == 0) {
        wire_.remove_prefix(i + 1);
        return value;
      }
    }
    return std::nullopt;
  }

  /// As libprotobuf reads one: five bytes at most, of which 32 bits count.
  std::optional<uint32_t> ReadTag() {
    const std::optional<uint64_t> tag = ReadVarint(5);
    if (!tag) return std::nullopt;
    return static_cast<uint32_t>(*tag);
  }

  std::optional<std::string_view> ReadBytes(uint64_t count) {
    if (count > wire_.size()) return std::nullopt;
    const std::string_view bytes = wire_.substr(0, count);
    wire_.remove_prefix(count);
    return bytes;
  }

 private:
  std::string_view wire_;
};

/// Where the walk is; turned into text only when something is wrong. Null: the request itself.
struct Location {
  const Location* parent;
  const FieldDescriptor* field;  // null: not in the schema
  uint64_t number;
  int element;  // of a repeated field
  int depth;
};

std::string PathOf(const Location* at) {
  if (at == nullptr) return "request";
  std::string path = at->parent == nullptr ? "" : absl::StrCat(PathOf(at->parent), ".");
  if (at->field == nullptr) {
    absl::StrAppend(&path, "unknown field ", at->number);
  } else {
    absl::StrAppend(&path, at->field->name());
    if (at->field->is_repeated()) absl::StrAppend(&path, "[", at->element, "]");
  }
  return path;
}

absl::Status ErrorAt(const Location* at, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(PathOf(at), ": ", what));
}

absl::Status CheckMessage(WireReader& reader, const Descriptor* type, const Location* at,
                          uint64_t open_group);

/// Bytes of a number on the wire, 0 for a varint.
size_t FixedBytes(FieldDescriptor::Type type) {
  switch (type) {
    case FieldDescriptor::TYPE_FLOAT:
    case FieldDescriptor::TYPE_FIXED32:
    case FieldDescriptor::TYPE_SFIXED32:
      return 4;
    case FieldDescriptor::TYPE_DOUBLE:
    case FieldDescriptor::TYPE_FIXED64:
    case FieldDescriptor::TYPE_SFIXED64:
      return 8;
    default:
      return 0;
  }
}

/// The elements of a repeated number, one after the other.
absl::Status CheckPacked(std::string_view bytes, const Location& at) {
  const size_t element_bytes = FixedBytes(at.field->type());
  if (element_bytes != 0 && bytes.size() % element_bytes != 0) {
    return ErrorAt(&at, absl::StrCat(bytes.size(), " bytes are not a multiple of ", element_bytes));
  }
  for (WireReader reader(bytes); element_bytes == 0 && !reader.empty();) {
    if (!reader.ReadVarint()) return ErrorAt(&at, "malformed varint");
  }
  return absl::OkStatus();
}

absl::Status CheckLengthDelimited(WireReader& reader, const Location& at) {
  const std::optional<uint64_t> length = reader.ReadVarint();
  if (!length) return ErrorAt(&at, "malformed length");
  const std::optional<std::string_view> bytes = reader.ReadBytes(*length);
  if (!bytes) return ErrorAt(&at, absl::StrCat("cut off, ", *length, " bytes announced"));
  if (at.field == nullptr) return absl::OkStatus();
  if (at.field->type() == FieldDescriptor::TYPE_STRING) {
    const size_t valid = ValidUtf8Prefix(*bytes);
    if (valid < bytes->size()) {
      return ErrorAt(&at, absl::StrCat("invalid UTF-8 at byte ", valid));
    }
  }
  if (at.field->type() == FieldDescriptor::TYPE_MESSAGE) {
    WireReader inner(*bytes);
    return CheckMessage(inner, at.field->message_type(), &at, 0);
  }
  if (at.field->is_repeated() && at.field->is_packable()) return CheckPacked(*bytes, at);
  return absl::OkStatus();
}

absl::Status CheckField(WireReader& reader, uint32_t wire_type, const Location& at) {
  switch (wire_type) {
    case kVarint:
      return reader.ReadVarint() ? absl::OkStatus() : ErrorAt(&at, "malformed varint");
    case kFixed64:
      return reader.ReadBytes(8) ? absl::OkStatus() : ErrorAt(&at, "cut off");
    case kFixed32:
      return reader.ReadBytes(4) ? absl::OkStatus() : ErrorAt(&at, "cut off");
    case kLengthDelimited:
      return CheckLengthDelimited(reader, at);
    case kStartGroup:
      return CheckMessage(reader, nullptr, &at, at.number);
    default:
      return ErrorAt(&at, absl::StrCat("invalid wire type ", wire_type));
  }
}

/// Reads fields up to the end of `reader`, or to the end of group `open_group` if that is not 0.
/// `type` is null inside fields the schema does not know.
absl::Status CheckMessage(WireReader& reader, const Descriptor* type, const Location* at,
                          uint64_t open_group) {
  const int depth = at == nullptr ? 0 : at->depth;
  if (depth > kMaxDepth) return ErrorAt(at, absl::StrCat("nested deeper than ", kMaxDepth));
  std::map<uint64_t, int> elements;  // of each repeated field, so far
  while (!reader.empty()) {
    const std::optional<uint32_t> tag = reader.ReadTag();
    if (!tag || *tag >> 3 == 0) return ErrorAt(at, "malformed field tag");
    const auto wire_type = static_cast<uint32_t>(*tag & 7u);
    Location field{at, nullptr, *tag >> 3, 0, depth + 1};
    if (wire_type == kEndGroup) {
      if (field.number == open_group) return absl::OkStatus();
      return ErrorAt(at, absl::StrCat("unexpected end of group ", field.number));
    }
    if (type != nullptr) field.field = type->FindFieldByNumber(static_cast<int>(field.number));
    if (field.field != nullptr && field.field->is_repeated()) {
      field.element = elements[field.number]++;
    }
    ASYMSERVE_RETURN_IF_ERROR(CheckField(reader, wire_type, field));
  }
  return open_group == 0 ? absl::OkStatus() : ErrorAt(at, "unterminated group");
}

}  // namespace

absl::Status FindWireError(std::string_view wire, const Descriptor& type) {
  WireReader reader(wire);
  return CheckMessage(reader, &type, nullptr, 0);
}

absl::Status DecodeRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  grpc::Slice slice;
  if (!bytes.DumpToSingleSlice(&slice).ok()) {
    return absl::InvalidArgumentError("request: the message could not be decompressed");
  }
  const std::string_view wire(reinterpret_cast<const char*>(slice.begin()), slice.size());
  if (wire.size() <= INT32_MAX &&
      message.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) {
    return absl::OkStatus();
  }
  ASYMSERVE_RETURN_IF_ERROR(FindWireError(wire, *message.GetDescriptor()));
  return absl::InvalidArgumentError(
      absl::StrCat("request: not a valid ", message.GetDescriptor()->full_name()));
}

}  // namespace asymserve
