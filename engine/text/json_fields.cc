#include "engine/text/json_fields.h"

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

absl::Status WrongType(const char* key, const nlohmann::json& value, const char* wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", key, "' is ", Excerpt(value), ", not ", wanted));
}

}  // namespace

const nlohmann::json* FindField(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto field = object.find(key);
  return field == object.end() || field->is_null() ? nullptr : &*field;
}

absl::StatusOr<std::string_view> StringField(const nlohmann::json& object, const char* key,
                                             std::string_view otherwise) {
  const nlohmann::json* const field = FindField(object, key);
  if (field == nullptr) return otherwise;
  if (!field->is_string()) return WrongType(key, *field, "a string");
  return std::string_view(field->get_ref<const std::string&>());
}

absl::StatusOr<bool> BoolField(const nlohmann::json& object, const char* key, bool otherwise) {
  const nlohmann::json* const field = FindField(object, key);
  if (field == nullptr) return otherwise;
  if (!field->is_boolean()) return WrongType(key, *field, "true or false");
  return field->get<bool>();
}

absl::StatusOr<const nlohmann::json*> ArrayField(const nlohmann::json& object, const char* key) {
  static const nlohmann::json empty = nlohmann::json::array();
  const nlohmann::json* const field = FindField(object, key);
  if (field == nullptr) return &empty;
  if (!field->is_array()) return WrongType(key, *field, "an array");
  return field;
}

std::string Excerpt(const nlohmann::json& value) {
  constexpr size_t kMaxBytes = 60;
  if (value.is_object()) return absl::StrCat("an object of ", value.size(), " fields");
  if (value.is_array()) return absl::StrCat("an array of ", value.size());
  std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxBytes) {
    text.resize(kMaxBytes);
    text += "...";
  }
  return text;
}

}  // namespace asymserve
