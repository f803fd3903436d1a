// A library of something else.
extern "C" int not_the_entry_of_a_cuda_module() {
  return 0;
}
