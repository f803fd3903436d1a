#pragma once

#include <map>
#include <string>
#include <string_view>

namespace asymserve {

/// config/asymserve.yaml, as it was when this was built.
std::string_view ReferenceText();

/// The comment right above each section and option that has one, by key: its lines without `# `.
std::map<std::string, std::string> ReferenceComments();

}  // namespace asymserve
