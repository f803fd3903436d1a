#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "grpcpp/grpcpp.h"

namespace asymserve {

inline constexpr char kTraceParentKey[] = "traceparent";

/// The trace that a call is part of, by W3C Trace Context: lower-case hex digits, or "-" when the
/// client names none.
struct TraceContext {
  std::string trace_id = "-";   // 32 digits
  std::string parent_id = "-";  // 16: the caller's span

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

/// Of one `traceparent`. Empty: not a valid one, which the specification wants ignored. What comes
/// after this server's version of it, 00, may have more fields behind the first four.
std::optional<TraceContext> ParseTraceParent(std::string_view value);

/// Of a call's metadata. A `traceparent` that is not valid, or not the only one, names none.
TraceContext TraceContextOf(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata);

}  // namespace asymserve
