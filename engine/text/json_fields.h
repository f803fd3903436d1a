#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

// Access to fields of JSON values of any shape: what a file should hold is never assumed.

namespace asymserve {

/// The field, or null when `object` is no object, has no such field, or has null there.
const nlohmann::json* FindField(const nlohmann::json& object, const char* key);

/// The field's string, or `otherwise` when it is absent. The string lives as long as `object`.
absl::StatusOr<std::string_view> StringField(const nlohmann::json& object, const char* key,
                                             std::string_view otherwise);

absl::StatusOr<bool> BoolField(const nlohmann::json& object, const char* key, bool otherwise);

/// The field's array; an empty one when it is absent.
absl::StatusOr<const nlohmann::json*> ArrayField(const nlohmann::json& object, const char* key);

/// A value for a message: cut to a readable length, valid UTF-8.
std::string Excerpt(const nlohmann::json& value);

}  // namespace asymserve
