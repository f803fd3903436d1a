// write_toy_model PATH: the GGUF file of the toy model, for tests that are not C++.

#include <cstdio>

#include "tests/support/toy_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_toy_model PATH\n");
    return 2;
  }
  asymserve::testing::ToyModel model;
  model.context_length = 4096;
  asymserve::testing::WriteToyGguf(model, argv[1]);
  return 0;
}
