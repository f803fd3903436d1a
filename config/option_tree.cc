#include "config/option_tree.h"

#include <algorithm>

namespace asymserve {
namespace {

OptionNode& Child(OptionNode& section, std::string_view name) {
  const auto found = std::find_if(section.children.begin(), section.children.end(),
                                  [&](const OptionNode& child) { return child.name == name; });
  if (found != section.children.end()) return *found;
  section.children.push_back({name, nullptr, {}});
  return section.children.back();
}

}  // namespace

OptionNode OptionTree() {
  OptionNode root;
  for (const Option& option : Options()) {
    OptionNode* node = &root;
    std::string_view rest = option.key;
    for (size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
      node = &Child(*node, rest.substr(0, dot));
      rest.remove_prefix(dot + 1);
    }
    Child(*node, rest).option = &option;
  }
  return root;
}

}  // namespace asymserve
