#pragma once

#include <string>

#include "engine/base/sha256.h"
#include "tests/support/file_io.h"

namespace asymserve::testing {

/// An entry of server.api_keys_file; `field` as "tenant: gold".
inline std::string KeyEntry(const std::string& name, const std::string& key,
                            const std::string& field = "") {
  Sha256 hash;
  hash.Update(key);
  return name + ":\n  sha256: \"" + ToHex(hash.Finish()) + "\"\n" +
         (field.empty() ? "" : "  " + field + "\n");
}

}  // namespace asymserve::testing
