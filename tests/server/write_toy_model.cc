// write_toy_model PATH [slow]: the GGUF file of the toy model, for tests that are not C++. `slow`:
// one of about a millisecond a step.

#include <cstdio>
#include <string_view>

#include "tests/support/toy_model.h"

int main(int argc, char** argv) {
  const bool slow = argc == 3 && std::string_view(argv[2]) == "slow";
  if (argc != 2 && !slow) {
    std::fprintf(stderr, "usage: write_toy_model PATH [slow]\n");
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
  }
  asymserve::testing::WriteToyGguf(model, argv[1]);
  return 0;
}
