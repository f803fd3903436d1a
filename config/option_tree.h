#pragma once

#include <string_view>
#include <vector>

#include "config/option.h"

namespace asymserve {

/// A section with its options and sections, or an option.
struct OptionNode {
  std::string_view name;           // without the section's; of the root empty
  const Option* option = nullptr;  // of a section null
  std::vector<OptionNode> children;
};

/// The table as the tree that YAML has, in its order.
OptionNode OptionTree();

}  // namespace asymserve
