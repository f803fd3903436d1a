#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace asymserve::jinja {

class Value;
struct MacroStatement;

/// A missing variable, attribute or item: prints as nothing, is false, iterates over nothing, and
/// is an error in any other use.
struct Undefined {
  std::shared_ptr<const std::string> name;  // what was missing; may be null
};
struct None {};

/// Python's sequences that templates meet. An iterator (the result of map, select, reverse ...) can
/// be gone through once and has no length; a view (dict.items(), range()) has one.
enum class SequenceKind : uint8_t { kList, kTuple, kView, kIterator };
struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  int depth = 1;  // levels of containers, this one included
  mutable bool consumed = false;
};

/// Insertion order, string keys.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  int depth = 1;

  const Value* Find(std::string_view key) const;
  /// Replaces the value of a key that is there.
  void Set(std::string_view key, Value value);
};

/// namespace(): the only mutable object. Owned by the interpreter, so that one that holds itself
/// does not keep itself alive.
struct Namespace {
  Dict attributes;
};

/// `loop` inside a for.
struct LoopState {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 1;  // of containers in it, as Sequence::depth
};

enum class Builtin : uint8_t { kRaiseException, kRange, kNamespace, kStrftimeNow };

/// A value of a template: immutable and cheap to copy. One thread.
class Value {
 public:
  using StringPtr = std::shared_ptr<const std::string>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using LoopPtr = std::shared_ptr<const LoopState>;

  Value() = default;  // undefined
  static Value MakeUndefined(std::string_view name);
  static Value MakeNone() { return Value(None{}); }
  static Value MakeBool(bool value) { return Value(value); }
  static Value MakeInt(int64_t value) { return Value(value); }
  static Value MakeFloat(double value) { return Value(value); }
  static Value MakeString(std::string value);
  static Value MakeString(std::string_view value) { return MakeString(std::string(value)); }
  static Value MakeNamespace(Namespace* value) { return Value(value); }
  static Value MakeLoop(LoopPtr value) { return Value(std::move(value)); }
  static Value MakeBuiltin(Builtin value) { return Value(value); }
  static Value MakeMacro(const MacroStatement* value) { return Value(value); }
  /// InvalidArgument when containers nest deeper than kMaxDepth.
  static absl::StatusOr<Value> MakeSequence(SequenceKind kind, std::vector<Value> items);
  static absl::StatusOr<Value> MakeDict(Dict dict);

  template <typename T>
  const T* If() const {
    return std::get_if<T>(&value_);
  }
  bool IsUndefined() const { return If<Undefined>() != nullptr; }
  bool IsNone() const { return If<None>() != nullptr; }
  /// Null when the value is something else.
  const std::string* String() const;
  const Sequence* AsSequence() const;
  const Dict* AsDict() const;

  bool IsTrue() const;
  /// Python's name of the type, for messages.
  std::string_view TypeName() const;
  /// "'x' is undefined".
  std::string UndefinedMessage() const;
  /// Bytes or items that an operation on the value may have to read.
  size_t Extent() const;
  /// The most levels of containers in one of them.
  static int DepthOf(const std::vector<Value>& items);

 private:
  static constexpr int kMaxDepth = 64;
  using Variant = std::variant<Undefined, None, bool, int64_t, double, StringPtr, SequencePtr,
                               DictPtr, Namespace*, LoopPtr, Builtin, const MacroStatement*>;
  template <typename T>
  explicit Value(T value) : value_(std::move(value)) {}
  int Depth() const;

  Variant value_;
};

}  // namespace asymserve::jinja
