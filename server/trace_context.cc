#include "server/trace_context.h"

#include <algorithm>
#include <iterator>

namespace asymserve {
namespace {

// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01: version, trace-id, parent-id, flags.
constexpr size_t kLength = 55;

bool IsHex(std::string_view digits) {
  return std::all_of(digits.begin(), digits.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view digits) {
  return IsHex(digits) && digits.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> ParseTraceParent(std::string_view value) {
  if (value.size() < kLength) return std::nullopt;
  if (value[2] != '-' || value[35] != '-' || value[52] != '-') return std::nullopt;
  const std::string_view version = value.substr(0, 2), trace_id = value.substr(3, 32);
  const std::string_view parent_id = value.substr(36, 16), flags = value.substr(53, 2);
  if (!IsHex(version) || version == "ff") return std::nullopt;
  if (!IsId(trace_id) || !IsId(parent_id) || !IsHex(flags)) return std::nullopt;
  const bool more = value.size() > kLength;
  if (more && (version == "00" || value[kLength] != '-')) return std::nullopt;
  return TraceContext{std::string(trace_id), std::string(parent_id)};
}

TraceContext TraceContextOf(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  const auto [first, last] = metadata.equal_range(kTraceParentKey);
  if (first == last || std::next(first) != last) return {};
  return ParseTraceParent({first->second.data(), first->second.size()}).value_or(TraceContext());
}

}  // namespace asymserve
