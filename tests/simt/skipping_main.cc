#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/simt/machine.h"

// The main function of tests of kernels. With --skip-barrier=FILE:LINE the barrier there is as if
// it were deleted (tests/simt/mutate_barriers), and the tests are expected to fail.

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  constexpr std::string_view kSkip = "--skip-barrier=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t colon = argument.rfind(':');
    if (!argument.starts_with(kSkip) || colon == argument.npos) {
      std::fprintf(stderr, "unknown argument: %s\n", argv[i]);
      return 2;
    }
    simt::Machine& machine = simt::Machine::Instance();
    machine.skip_file = argument.substr(kSkip.size(), colon - kSkip.size());
    machine.skip_line =
        static_cast<uint32_t>(std::strtoul(argument.data() + colon + 1, nullptr, 10));
  }
  return RUN_ALL_TESTS();
}
