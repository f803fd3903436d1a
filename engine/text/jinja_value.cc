#include "engine/text/jinja_value.h"

#include <algorithm>

#include "engine/base/status.h"

namespace asymserve::jinja {
namespace {

absl::Status TooDeep(int limit) {
  return absl::InvalidArgumentError(
      absl::StrCat("lists and dicts nest deeper than ", limit, " levels"));
}

}  // namespace

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::Set(std::string_view key, Value value) {
  for (auto& [name, old] : entries) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(std::string(key), std::move(value));
}

Value Value::MakeUndefined(std::string_view name) {
  return Value(Undefined{std::make_shared<const std::string>(name)});
}

Value Value::MakeString(std::string value) {
  return Value(std::make_shared<const std::string>(std::move(value)));
}

absl::StatusOr<Value> Value::MakeSequence(SequenceKind kind, std::vector<Value> items) {
  const int depth = DepthOf(items);
  if (depth >= kMaxDepth) return TooDeep(kMaxDepth);
  return Value(
      std::make_shared<const Sequence>(Sequence{kind, std::move(items), depth + 1, false}));
}

absl::StatusOr<Value> Value::MakeDict(Dict dict) {
  int depth = 0;
  for (const auto& entry : dict.entries) depth = std::max(depth, entry.second.Depth());
  if (depth >= kMaxDepth) return TooDeep(kMaxDepth);
  dict.depth = depth + 1;
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

int Value::Depth() const {
  if (const Sequence* sequence = AsSequence()) return sequence->depth;
  if (const Dict* dict = AsDict()) return dict->depth;
  if (const auto* loop = If<LoopPtr>()) return (*loop)->depth;
  return 0;
}

int Value::DepthOf(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.Depth());
  return depth;
}

const std::string* Value::String() const {
  const auto* string = If<StringPtr>();
  return string == nullptr ? nullptr : string->get();
}

const Sequence* Value::AsSequence() const {
  const auto* sequence = If<SequencePtr>();
  return sequence == nullptr ? nullptr : sequence->get();
}

const Dict* Value::AsDict() const {
  const auto* dict = If<DictPtr>();
  return dict == nullptr ? nullptr : dict->get();
}

bool Value::IsTrue() const {
  if (IsUndefined() || IsNone()) return false;
  if (const bool* value = If<bool>()) return *value;
  if (const int64_t* value = If<int64_t>()) return *value != 0;
  if (const double* value = If<double>()) return *value != 0;
  if (const std::string* value = String()) return !value->empty();
  if (const Dict* value = AsDict()) return !value->entries.empty();
  if (const Sequence* value = AsSequence()) {
    return value->kind == SequenceKind::kIterator || !value->items.empty();
  }
  return true;
}

std::string_view Value::TypeName() const {
  if (IsUndefined()) return "undefined";
  if (IsNone()) return "None";
  if (If<bool>() != nullptr) return "bool";
  if (If<int64_t>() != nullptr) return "int";
  if (If<double>() != nullptr) return "float";
  if (String() != nullptr) return "str";
  if (AsDict() != nullptr) return "dict";
  if (If<Namespace*>() != nullptr) return "namespace";
  if (If<LoopPtr>() != nullptr) return "loop";
  if (const Sequence* sequence = AsSequence()) {
    switch (sequence->kind) {
      case SequenceKind::kList:
        return "list";
      case SequenceKind::kTuple:
        return "tuple";
      case SequenceKind::kView:
        return "view";
      case SequenceKind::kIterator:
        return "iterator";
    }
  }
  return "function";
}

std::string Value::UndefinedMessage() const {
  const auto* undefined = If<Undefined>();
  if (undefined == nullptr || undefined->name == nullptr) return "a value is undefined";
  return absl::StrCat("'", *undefined->name, "' is undefined");
}

size_t Value::Extent() const {
  if (const std::string* string = String()) return string->size();
  if (const Sequence* sequence = AsSequence()) return sequence->items.size();
  if (const Dict* dict = AsDict()) return dict->entries.size();
  return 0;
}

}  // namespace asymserve::jinja
