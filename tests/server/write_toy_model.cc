// write_toy_model PATH [slow|tier]: the GGUF file of a toy model, for tests that are not C++.
// `slow`: one of about a millisecond a step. `tier`: one of less, with a profile (toy_tier.h).

#include <cstdio>
#include <string_view>

#include "tests/server/toy_tier.h"
#include "tests/support/toy_model.h"

int main(int argc, char** argv) {
  const std::string_view kind = argc == 3 ? argv[2] : "";
  const bool slow = kind == "slow", tier = kind == "tier";
  if (argc != 2 && !slow && !tier) {
    std::fprintf(stderr, "usage: write_toy_model PATH [slow|tier]\n");
    return 2;
  }
  asymserve::testing::ToyModel model;
  model.context_length = 4096;
  if (slow) {
    model.layers = 4;
    model.width = 256;
    model.feed_forward_width = 512;
    model.heads = 8;
    model.head_size = 32;
  } else if (tier) {
    model.layers = 4;
    model.width = 128;
    model.feed_forward_width = 256;
    model.heads = 8;
    model.head_size = 8;
  }
  asymserve::testing::WriteToyGguf(model, argv[1]);
  if (tier) asymserve::testing::WriteToyTier(argv[1]);
  return 0;
}
