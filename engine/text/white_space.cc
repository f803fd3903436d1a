#include "engine/text/white_space.h"

#include <algorithm>
#include <array>

namespace asymserve {
namespace {

constexpr std::array<std::string_view, 25> kWhiteSpace = {
    " ",
    "\t",
    "\n",
    "\v",
    "\f",
    "\r",
    "\xC2\x85",
    "\xC2\xA0",
    "\xE1\x9A\x80",
    "\xE2\x80\x80",
    "\xE2\x80\x81",
    "\xE2\x80\x82",
    "\xE2\x80\x83",
    "\xE2\x80\x84",
    "\xE2\x80\x85",
    "\xE2\x80\x86",
    "\xE2\x80\x87",
    "\xE2\x80\x88",
    "\xE2\x80\x89",
    "\xE2\x80\x8A",
    "\xE2\x80\xA8",
    "\xE2\x80\xA9",
    "\xE2\x80\xAF",
    "\xE2\x81\x9F",
    "\xE3\x80\x80",
};

}  // namespace

std::string_view StripLeadingWhiteSpace(std::string_view text) {
  while (true) {
    const auto* const space =
        std::find_if(kWhiteSpace.begin(), kWhiteSpace.end(),
                     [text](std::string_view each) { return text.starts_with(each); });
    if (space == kWhiteSpace.end()) return text;
    text.remove_prefix(space->size());
  }
}

std::string_view StripTrailingWhiteSpace(std::string_view text) {
  while (true) {
    const auto* const space =
        std::find_if(kWhiteSpace.begin(), kWhiteSpace.end(),
                     [text](std::string_view each) { return text.ends_with(each); });
    if (space == kWhiteSpace.end()) return text;
    text.remove_suffix(space->size());
  }
}

}  // namespace asymserve
