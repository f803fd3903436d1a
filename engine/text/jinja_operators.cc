#include "engine/text/jinja_operators.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/jinja_text.h"

namespace asymserve::jinja {
namespace {

absl::Status Unsupported(std::string_view op, const Value& left, const Value& right) {
  if (left.IsUndefined()) return absl::InvalidArgumentError(left.UndefinedMessage());
  if (right.IsUndefined()) return absl::InvalidArgumentError(right.UndefinedMessage());
  return absl::InvalidArgumentError(absl::StrCat("cannot apply '", std::string(op), "' to ",
                                                 std::string(left.TypeName()), " and ",
                                                 std::string(right.TypeName())));
}

absl::Status Overflow() {
  return absl::InvalidArgumentError("a number does not fit in 64 bits");
}

std::optional<double> AsDouble(const Value& value) {
  if (const double* number = value.If<double>()) return *number;
  int64_t storage = 0;
  if (const int64_t* number = AsInteger(value, storage)) return static_cast<double>(*number);
  return std::nullopt;
}

absl::StatusOr<Value> MakeNumber(double value) {
  if (!std::isfinite(value)) return Overflow();
  return Value::MakeFloat(value);
}

// Python rounds quotients down; the remainder has the sign of the divisor.
absl::StatusOr<Value> IntegerQuotient(std::string_view op, int64_t a, int64_t b) {
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (b == -1) {  // the one quotient that may overflow, and the processor traps on it
    if (op == "%") return Value::MakeInt(0);
    return Negate(Value::MakeInt(a));
  }
  const int64_t remainder = a % b;
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  if (op == "%") return Value::MakeInt(adjust ? remainder + b : remainder);
  return Value::MakeInt(a / b - (adjust ? 1 : 0));
}

absl::StatusOr<Value> IntegerArithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "/") {
    if (b == 0) return absl::InvalidArgumentError("division by zero");
    constexpr int64_t kExact = int64_t{1} << 53;  // beyond, Python rounds once and we would twice
    if (a > kExact || a < -kExact || b > kExact || b < -kExact) return Overflow();
    return MakeNumber(static_cast<double>(a) / static_cast<double>(b));
  } else {
    return IntegerQuotient(op, a, b);
  }
  if (overflow) return Overflow();
  return Value::MakeInt(result);
}

absl::StatusOr<Value> FloatArithmetic(std::string_view op, double a, double b) {
  if (op == "+") return MakeNumber(a + b);
  if (op == "-") return MakeNumber(a - b);
  if (op == "*") return MakeNumber(a * b);
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == "/") return MakeNumber(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == "%") return MakeNumber(remainder == 0 ? std::copysign(0.0, b) : remainder);
  return MakeNumber(std::round((a - remainder) / b));
}

absl::StatusOr<Value> Repeat(const std::string& text, int64_t times, Budget& budget) {
  if (times <= 0 || text.empty()) return Value::MakeString(std::string());
  if (static_cast<uint64_t>(times) > budget.bytes_left() / text.size()) {
    return budget.Allocate(budget.bytes_left() + 1);
  }
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text.size() * static_cast<size_t>(times)));
  std::string out;
  out.reserve(text.size() * static_cast<size_t>(times));
  for (int64_t i = 0; i < times; ++i) out += text;
  return Value::MakeString(std::move(out));
}

absl::StatusOr<bool> ItemsEqual(const std::vector<Value>& left, const std::vector<Value>& right,
                                Budget& budget) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(const bool equal, Equal(left[i], right[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> DictsEqual(const Dict& left, const Dict& right, Budget& budget) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Work(right.entries.size()));
    const Value* other = right.Find(key);
    if (other == nullptr) return false;
    ASYMSERVE_ASSIGN_OR_RETURN(const bool equal, Equal(value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(container.Extent()));
  if (container.IsUndefined()) return false;
  if (const std::string* text = container.String()) {
    const std::string* part = item.String();
    if (part == nullptr) return Unsupported("in", item, container);
    return Find(*text, *part) != std::string::npos;
  }
  if (const Dict* dict = container.AsDict()) {
    const std::string* key = item.String();
    return key != nullptr && dict->Find(*key) != nullptr;
  }
  const Sequence* sequence = container.AsSequence();
  if (sequence == nullptr || sequence->kind == SequenceKind::kIterator) {
    return Unsupported("in", item, container);
  }
  for (const Value& candidate : sequence->items) {
    ASYMSERVE_ASSIGN_OR_RETURN(const bool equal, Equal(candidate, item, budget));
    if (equal) return true;
  }
  return false;
}

template <typename T>
bool Ordered(Comparison comparison, const T& left, const T& right) {
  switch (comparison) {
    case Comparison::kLess:
      return left < right;
    case Comparison::kLessEqual:
      return left <= right;
    case Comparison::kGreater:
      return left > right;
    default:
      return left >= right;
  }
}

// Ints compare exactly, an int and a float as floats: exact below 2^53, which callers accept.
absl::StatusOr<bool> Order(Comparison comparison, const Value& left, const Value& right) {
  int64_t left_storage = 0, right_storage = 0;
  const int64_t* a = AsInteger(left, left_storage);
  const int64_t* b = AsInteger(right, right_storage);
  if (a != nullptr && b != nullptr) return Ordered(comparison, *a, *b);
  const auto x = AsDouble(left);
  const auto y = AsDouble(right);
  if (x && y) return Ordered(comparison, *x, *y);
  const std::string* s = left.String();
  const std::string* t = right.String();
  if (s != nullptr && t != nullptr) return Ordered(comparison, *s, *t);  // bytes order as UTF-32
  return Unsupported("<", left, right);
}

}  // namespace

const int64_t* AsInteger(const Value& value, int64_t& storage) {
  if (const int64_t* number = value.If<int64_t>()) return number;
  const bool* flag = value.If<bool>();
  if (flag == nullptr) return nullptr;
  storage = *flag ? 1 : 0;
  return &storage;
}

absl::StatusOr<Value> MakeText(std::string_view text, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text.size() + kItemBytes));
  return Value::MakeString(text);
}

absl::StatusOr<Value> MakeTextList(const std::vector<std::string_view>& texts, Budget& budget) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (const std::string_view text : texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(Value item, MakeText(text, budget));
    items.push_back(std::move(item));
  }
  return Value::MakeSequence(SequenceKind::kList, std::move(items));
}

absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& left, const Value& right,
                                 Budget& budget) {
  int64_t left_storage = 0, right_storage = 0;
  const int64_t* a = AsInteger(left, left_storage);
  const int64_t* b = AsInteger(right, right_storage);
  if (a != nullptr && b != nullptr) return IntegerArithmetic(op, *a, *b);
  const auto x = AsDouble(left);
  const auto y = AsDouble(right);
  if (x && y) return FloatArithmetic(op, *x, *y);

  const std::string* s = left.String();
  const std::string* t = right.String();
  if (op == "+" && s != nullptr && t != nullptr) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(s->size() + t->size()));
    return Value::MakeString(*s + *t);
  }
  if (op == "*" && s != nullptr && b != nullptr) return Repeat(*s, *b, budget);
  if (op == "*" && a != nullptr && t != nullptr) return Repeat(*t, *a, budget);
  if (op == "%" && s != nullptr) {
    return absl::InvalidArgumentError("formatting a string with % is not supported");
  }
  const Sequence* l = left.AsSequence();
  const Sequence* r = right.AsSequence();
  const auto is_plain = [](const Sequence& sequence) {
    return sequence.kind == SequenceKind::kList || sequence.kind == SequenceKind::kTuple;
  };
  if (op == "+" && l != nullptr && r != nullptr && l->kind == r->kind && is_plain(*l)) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate((l->items.size() + r->items.size()) * sizeof(Value)));
    std::vector<Value> items = l->items;
    items.insert(items.end(), r->items.begin(), r->items.end());
    return Value::MakeSequence(l->kind, std::move(items));
  }
  return Unsupported(op, left, right);
}

absl::StatusOr<Value> Negate(const Value& value) {
  int64_t storage = 0;
  if (const int64_t* number = AsInteger(value, storage)) {
    if (*number == std::numeric_limits<int64_t>::min()) return Overflow();
    return Value::MakeInt(-*number);
  }
  if (const double* number = value.If<double>()) return Value::MakeFloat(-*number);
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  return absl::InvalidArgumentError(
      absl::StrCat("cannot negate a value of type ", std::string(value.TypeName())));
}

absl::StatusOr<bool> Equal(const Value& left, const Value& right, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(left.Extent()));
  if (left.IsUndefined() || right.IsUndefined()) return left.IsUndefined() == right.IsUndefined();
  if (left.IsNone() || right.IsNone()) return left.IsNone() == right.IsNone();
  if (const std::string* text = left.String()) {
    const std::string* other = right.String();
    return other != nullptr && *text == *other;
  }
  if (AsDouble(left) && AsDouble(right)) {
    int64_t left_storage = 0, right_storage = 0;
    const int64_t* a = AsInteger(left, left_storage);
    const int64_t* b = AsInteger(right, right_storage);
    if (a != nullptr && b != nullptr) return *a == *b;
    return *AsDouble(left) == *AsDouble(right);
  }
  const Sequence* sequence = left.AsSequence();
  const Sequence* other_sequence = right.AsSequence();
  if (sequence != nullptr && other_sequence != nullptr) {
    if (sequence == other_sequence) return true;
    if (sequence->kind != other_sequence->kind) return false;
    if (sequence->kind == SequenceKind::kIterator || sequence->kind == SequenceKind::kView) {
      return Unsupported("==", left, right);
    }
    return ItemsEqual(sequence->items, other_sequence->items, budget);
  }
  const Dict* dict = left.AsDict();
  const Dict* other_dict = right.AsDict();
  if (dict != nullptr && other_dict != nullptr) return DictsEqual(*dict, *other_dict, budget);
  const auto* name_space = left.If<Namespace*>();
  const auto* other_name_space = right.If<Namespace*>();
  if (name_space != nullptr && other_name_space != nullptr) {
    return *name_space == *other_name_space;
  }
  const auto is_function = [](const Value& value) { return value.TypeName() == "function"; };
  if (is_function(left) && is_function(right)) return Unsupported("==", left, right);
  return false;
}

absl::StatusOr<bool> Compare(Comparison comparison, const Value& left, const Value& right,
                             Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(left.Extent()));
  switch (comparison) {
    case Comparison::kEqual:
      return Equal(left, right, budget);
    case Comparison::kNotEqual: {
      ASYMSERVE_ASSIGN_OR_RETURN(const bool equal, Equal(left, right, budget));
      return !equal;
    }
    case Comparison::kIn:
      return Contains(right, left, budget);
    case Comparison::kNotIn: {
      ASYMSERVE_ASSIGN_OR_RETURN(const bool contained, Contains(right, left, budget));
      return !contained;
    }
    default:
      return Order(comparison, left, right);
  }
}

}  // namespace asymserve::jinja
