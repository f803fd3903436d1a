#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

// Runs launches in each order of threads that tests/simt has. With ASYMSERVE_ON_DEVICE, where the
// same tests run on a GPU, it is as many times in the order that the device takes.

#ifndef ASYMSERVE_ON_DEVICE
#include "tests/simt/machine.h"
#endif

namespace simt {

/// Calls run() once with each order of threads and blocks, under a trace of its name.
template <typename Run>
void ForEachOrder(Run run) {
#ifdef ASYMSERVE_ON_DEVICE
  for (const char* name : {"first", "second", "third"}) {
    SCOPED_TRACE(std::string(name) + " time on the device");
    run();
  }
#else
  Machine& machine = Machine::Instance();
  const std::pair<Order, const char*> orders[] = {
      {Order::kForward, "forward"}, {Order::kReverse, "reverse"}, {Order::kRandom, "random"}};
  for (const auto& [order, name] : orders) {
    SCOPED_TRACE(std::string("threads in order ") + name);
    machine.order = order;
    run();
  }
  machine.order = Order::kForward;
#endif
}

/// Runs `launch`, which returns a result, in each order; expects the same each time and gives it.
template <typename Launch>
auto SameInEveryOrder(Launch launch) {
  auto first = launch();
  ForEachOrder([&] { EXPECT_EQ(launch(), first) << "depends on the order of threads"; });
  return first;
}

}  // namespace simt
