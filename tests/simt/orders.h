#pragma once

#include <gtest/gtest.h>

#include "tests/simt/machine.h"

namespace simt {

/// Calls run() once with each order of threads and blocks, under a trace of its name.
template <typename Run>
void ForEachOrder(Run run) {
  Machine& machine = Machine::Instance();
  const std::pair<Order, const char*> orders[] = {
      {Order::kForward, "forward"}, {Order::kReverse, "reverse"}, {Order::kRandom, "random"}};
  for (const auto& [order, name] : orders) {
    SCOPED_TRACE(std::string("threads in order ") + name);
    machine.order = order;
    run();
  }
  machine.order = Order::kForward;
}

/// Runs `launch`, which returns a result, in each order; expects the same each time and gives it.
template <typename Launch>
auto SameInEveryOrder(Launch launch) {
  auto first = launch();
  ForEachOrder([&] { EXPECT_EQ(launch(), first) << "depends on the order of threads"; });
  return first;
}

}  // namespace simt
