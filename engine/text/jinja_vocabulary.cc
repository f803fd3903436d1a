#include "engine/text/jinja_vocabulary.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace asymserve::jinja {
namespace {

template <size_t kSize>
bool Contains(const std::array<std::string_view, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr auto kFilters = std::to_array<std::string_view>(
    {"capitalize", "count",  "d",          "default", "first", "int",    "items",      "join",
     "last",       "length", "list",       "lower",   "map",   "reject", "rejectattr", "replace",
     "reverse",    "select", "selectattr", "string",  "title", "tojson", "trim",       "upper"});

constexpr auto kTestsWithoutArgument = std::to_array<std::string_view>(
    {"boolean", "defined", "even", "false", "float", "integer", "iterable", "mapping", "none",
     "number", "odd", "sequence", "string", "true", "undefined"});

constexpr auto kTestsWithArgument =
    std::to_array<std::string_view>({"divisibleby", "eq", "equalto", "in", "ne"});

constexpr auto kMethods = std::to_array<std::string_view>(
    {"capitalize", "count", "endswith",   "find",         "get",          "items",   "join",
     "keys",       "lower", "lstrip",     "removeprefix", "removesuffix", "replace", "rsplit",
     "rstrip",     "split", "startswith", "strip",        "title",        "upper",   "values"});

constexpr auto kStringAttributes = std::to_array<std::string_view>(
    {"capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
     "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
     "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
     "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
     "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
     "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
     "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
     "swapcase",     "title",       "translate", "upper",      "zfill"});

constexpr auto kListAttributes =
    std::to_array<std::string_view>({"append", "clear", "copy", "count", "extend", "index",
                                     "insert", "pop", "remove", "reverse", "sort"});

constexpr auto kDictAttributes =
    std::to_array<std::string_view>({"clear", "copy", "fromkeys", "get", "items", "keys", "pop",
                                     "popitem", "setdefault", "update", "values"});

}  // namespace

bool IsKnownFilter(std::string_view name) {
  return Contains(kFilters, name);
}
bool IsKnownTest(std::string_view name) {
  return Contains(kTestsWithoutArgument, name) || Contains(kTestsWithArgument, name);
}
bool IsKnownMethod(std::string_view name) {
  return Contains(kMethods, name);
}
bool TestTakesArgument(std::string_view name) {
  return Contains(kTestsWithArgument, name);
}
bool IsStringAttribute(std::string_view name) {
  return Contains(kStringAttributes, name);
}
bool IsListAttribute(std::string_view name) {
  return Contains(kListAttributes, name);
}
bool IsDictAttribute(std::string_view name) {
  return Contains(kDictAttributes, name);
}

}  // namespace asymserve::jinja
