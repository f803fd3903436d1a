#pragma once

#include <utility>

namespace asymserve {

/// A loop counter that is a constant expression.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

template <typename Body, int... kIndex>
[[gnu::always_inline]] inline void UnrollIndices(Body& body,
                                                 std::integer_sequence<int, kIndex...>) {
  (body(Constant<kIndex>{}), ...);
}

/// body(Constant<0>{}), ..., body(Constant<kCount - 1>{}): straight-line code, so that arrays that
/// the body indexes stay in registers. `body` is a lambda marked always_inline.
template <int kCount, typename Body>
[[gnu::always_inline]] inline void Unroll(Body body) {
  UnrollIndices(body, std::make_integer_sequence<int, kCount>{});
}

/// body(Constant<count>{}) for a `count` in [1, kMax].
template <int kMax, typename Body>
inline void WithCount(int count, Body body) {
  if constexpr (kMax > 1) {
    if (count < kMax) return WithCount<kMax - 1>(count, body);
  }
  body(Constant<kMax>{});
}

/// body(Constant<size>{}) for the first of the ascending sizes that is at least `count`.
template <int kSize, int... kLarger, typename Body>
inline void WithSize(int count, Body body) {
  if constexpr (sizeof...(kLarger) > 0) {
    if (count > kSize) return WithSize<kLarger...>(count, body);
  }
  body(Constant<kSize>{});
}

}  // namespace asymserve
