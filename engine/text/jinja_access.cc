// Reading parts of values: iteration, length, attributes, subscripts and slices.

#include <algorithm>
#include <string>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_text.h"
#include "engine/text/jinja_vocabulary.h"

namespace asymserve::jinja {
namespace {

absl::Status BoundMethod(const Value& value, std::string_view name) {
  return absl::InvalidArgumentError(absl::StrCat("using the method '", std::string(name), "' of a ",
                                                 std::string(value.TypeName()),
                                                 " without calling it is not supported"));
}

Value LoopAttribute(const LoopState& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::MakeInt(index + 1);
  if (name == "index0") return Value::MakeInt(index);
  if (name == "revindex") return Value::MakeInt(length - index);
  if (name == "revindex0") return Value::MakeInt(length - index - 1);
  if (name == "first") return Value::MakeBool(index == 0);
  if (name == "last") return Value::MakeBool(index + 1 == length);
  if (name == "length") return Value::MakeInt(length);
  if (name == "depth") return Value::MakeInt(1);  // grows in recursive loops only
  if (name == "depth0") return Value::MakeInt(0);
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return loop.items[loop.index + 1];
  return Value::MakeUndefined(name);
}

absl::StatusOr<int64_t> SliceBound(const Value& bound, int64_t otherwise) {
  if (bound.IsNone()) return otherwise;
  int64_t storage = 0;
  if (const int64_t* number = AsInteger(bound, storage)) return *number;
  return absl::InvalidArgumentError(
      absl::StrCat("a slice bound is a ", std::string(bound.TypeName()), ", not an int"));
}

// The indices that Python's value[begin:end:step] visits, for a length.
absl::StatusOr<std::vector<size_t>> SliceIndices(const Value& begin, const Value& end,
                                                 const Value& step, int64_t length) {
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t stride, SliceBound(step, 1));
  if (stride == 0) return absl::InvalidArgumentError("a slice step is zero");
  const int64_t low = stride > 0 ? 0 : -1;
  const int64_t high = stride > 0 ? length : length - 1;
  const auto clamp = [&](int64_t bound) {
    return std::clamp(bound < 0 ? bound + length : bound, low, high);
  };
  ASYMSERVE_ASSIGN_OR_RETURN(int64_t first, SliceBound(begin, stride > 0 ? low : high));
  ASYMSERVE_ASSIGN_OR_RETURN(int64_t last, SliceBound(end, stride > 0 ? high : low));
  if (!begin.IsNone()) first = clamp(first);
  if (!end.IsNone()) last = clamp(last);
  std::vector<size_t> indices;
  const int64_t bounded_stride = std::clamp(stride, -length - 1, length + 1);
  for (int64_t i = first; stride > 0 ? i < last : i > last; i += bounded_stride) {
    indices.push_back(static_cast<size_t>(i));
  }
  return indices;
}

// The character of a str at a code point index, negative ones from the end; empty when outside.
std::string_view CharacterAt(std::string_view text, int64_t index) {
  if (index < 0) index += CodePoints(text);
  if (index < 0) return {};
  for (size_t begin = 0; begin < text.size(); --index) {
    size_t end = begin;
    NextCodePoint(text, end);
    if (index == 0) return text.substr(begin, end - begin);
    begin = end;
  }
  return {};
}

}  // namespace

absl::StatusOr<std::vector<Value>> Items(const Value& value, Budget& budget) {
  if (value.IsUndefined()) return std::vector<Value>();
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(value.Extent() * sizeof(Value)));
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(value.Extent()));
  if (const Sequence* sequence = value.AsSequence()) {
    if (sequence->kind == SequenceKind::kIterator) {
      if (sequence->consumed) {
        return absl::InvalidArgumentError("using an iterator twice is not supported");
      }
      sequence->consumed = true;
    }
    return sequence->items;
  }
  std::vector<Value> items;
  if (const std::string* text = value.String()) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text->size() * (sizeof(std::string_view))));
    for (const std::string_view character : SplitCharacters(*text)) {
      ASYMSERVE_ASSIGN_OR_RETURN(Value item, MakeText(character, budget));
      items.push_back(std::move(item));
    }
    return items;
  }
  if (const Dict* dict = value.AsDict()) {
    for (const auto& entry : dict->entries) {
      ASYMSERVE_ASSIGN_OR_RETURN(Value item, MakeText(entry.first, budget));
      items.push_back(std::move(item));
    }
    return items;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a value of type ", std::string(value.TypeName()), " cannot be iterated over"));
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.IsUndefined()) return 0;
  if (const std::string* text = value.String()) return CodePoints(*text);
  if (const Dict* dict = value.AsDict()) return static_cast<int64_t>(dict->entries.size());
  const Sequence* sequence = value.AsSequence();
  if (sequence != nullptr && sequence->kind != SequenceKind::kIterator) {
    return static_cast<int64_t>(sequence->items.size());
  }
  if (const auto* loop = value.If<Value::LoopPtr>()) {
    return static_cast<int64_t>((*loop)->items.size());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a value of type ", std::string(value.TypeName()), " has no length"));
}

absl::StatusOr<Value> Attribute(const Value& value, std::string_view name) {
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  if (const Dict* dict = value.AsDict()) {
    if (IsDictAttribute(name)) return BoundMethod(value, name);
    const Value* item = dict->Find(name);
    return item != nullptr ? *item : Value::MakeUndefined(name);
  }
  if (const auto* name_space = value.If<Namespace*>()) {
    const Value* item = (*name_space)->attributes.Find(name);
    return item != nullptr ? *item : Value::MakeUndefined(name);
  }
  if (const auto* loop = value.If<Value::LoopPtr>()) {
    if (name == "cycle" || name == "changed") return BoundMethod(value, name);
    return LoopAttribute(**loop, name);
  }
  if (value.String() != nullptr && IsStringAttribute(name)) return BoundMethod(value, name);
  if (value.AsSequence() != nullptr && IsListAttribute(name)) return BoundMethod(value, name);
  if (value.If<int64_t>() != nullptr || value.If<double>() != nullptr ||
      value.If<bool>() != nullptr || value.TypeName() == "function") {
    return absl::InvalidArgumentError(absl::StrCat("the attribute '", std::string(name), "' of a ",
                                                   std::string(value.TypeName()),
                                                   " is not supported"));
  }
  return Value::MakeUndefined(name);
}

absl::StatusOr<Value> Subscript(const Value& value, const Value& index, Budget& budget) {
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  if (const std::string* key = index.String()) {
    // Jinja tries the item first and falls back to the attribute of that name.
    const Dict* dict = value.AsDict();
    const Value* item = dict != nullptr ? dict->Find(*key) : nullptr;
    if (item != nullptr) return *item;
    return Attribute(value, *key);
  }
  int64_t storage = 0;
  const int64_t* position = AsInteger(index, storage);
  if (position == nullptr || value.AsDict() != nullptr) return Value::MakeUndefined("item");
  if (const std::string* text = value.String()) {
    const std::string_view character = CharacterAt(*text, *position);
    if (character.empty()) return Value::MakeUndefined("item");
    return MakeText(character, budget);
  }
  const Sequence* sequence = value.AsSequence();
  if (sequence == nullptr || sequence->kind == SequenceKind::kIterator) {
    return Value::MakeUndefined("item");
  }
  if (sequence->kind == SequenceKind::kView) {  // range() has items by position, dict.keys() not
    return absl::InvalidArgumentError("a subscript of a view is not supported");
  }
  const auto length = static_cast<int64_t>(sequence->items.size());
  const int64_t wanted = *position < 0 ? *position + length : *position;
  if (wanted < 0 || wanted >= length) return Value::MakeUndefined("item");
  return sequence->items[static_cast<size_t>(wanted)];
}

absl::StatusOr<Value> Slice(const Value& value, const Value& begin, const Value& end,
                            const Value& step, Budget& budget) {
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  const std::string* text = value.String();
  const Sequence* sequence = value.AsSequence();
  const bool is_plain = sequence != nullptr && (sequence->kind == SequenceKind::kList ||
                                                sequence->kind == SequenceKind::kTuple);
  if (text == nullptr && !is_plain) {
    return absl::InvalidArgumentError(
        absl::StrCat("a value of type ", std::string(value.TypeName()), " cannot be sliced"));
  }
  // Indices, characters and items together.
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(value.Extent() * 2 * sizeof(Value)));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t length, Length(value));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<size_t> indices,
                             SliceIndices(begin, end, step, length));
  if (text != nullptr) {
    const std::vector<std::string_view> characters = SplitCharacters(*text);
    std::string out;
    for (const size_t index : indices) out += characters[index];
    return Value::MakeString(std::move(out));
  }
  std::vector<Value> items;
  items.reserve(indices.size());
  for (const size_t index : indices) items.push_back(sequence->items[index]);
  return Value::MakeSequence(sequence->kind, std::move(items));
}

}  // namespace asymserve::jinja
