#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"

#include "config/config.h"
#include "config/yaml_entries.h"

// The table of options: what YAML, --set and validation know of each is one row.

namespace asymserve {

struct Option {
  enum class Format : uint8_t {
    kFree,             // any value of the type within its range or choices
    kAddress,          // HOST:PORT
    kOptionalAddress,  // HOST:PORT or empty
    kTenants,          // tenants.h
  };
  /// The member that holds the value; its type is the option's type. int64_t is a size in bytes.
  using Member = std::variant<int32_t& (*)(Config&), int64_t& (*)(Config&), double& (*)(Config&),
                              bool& (*)(Config&), std::string& (*)(Config&)>;

  std::string_view key;  // "section.name", "section.section.name"
  Member member;
  double min = 0, max = 0;                         // of numbers, both allowed
  std::span<const std::string_view> choices = {};  // of text; none: any
  Format format = Format::kFree;
};

std::span<const Option> Options();

/// Sets one option, or checks that a section is one. InvalidArgument: "KEY: what was expected, got
/// what" or "KEY: unknown key, did you mean NEAREST?"
absl::Status Assign(Config& config, const YamlEntry& entry);

/// Whether the value that `config` holds is allowed. Same messages.
absl::Status CheckValue(const Config& config, const Option& option);

}  // namespace asymserve
