#include "engine/base/kernel_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

TEST(KernelMemoryTest, SumsTheMappingsWithinEachSetOfRanges) {
  const std::string smaps =
      "1000-3000 rw-p 00000000 00:00 0    [anon:one]\n"
      "Size:                  8 kB\n"
      "KernelPageSize:        4 kB\n"
      "Rss:                   4 kB\n"
      "3000-4000 ---p 00000000 00:00 0\n"
      "Size:                  4 kB\n"
      "Rss:                   0 kB\n"
      "4000-8000 rw-p 00000000 00:00 0\n"
      "Size:                 16 kB\n"
      "Rss:                  12 kB\n"
      "VmFlags: rd wr mr mw me ac\n"
      "8000-9000 rw-p 00000000 00:00 0\n"
      "Size:                  4 kB\n"
      "Rss:                   4 kB\n";
  const std::vector<std::vector<AddressRange>> sets = {
      {{0x1000, 0x3000}, {0x4000, 0x8000}}, {{0x8000, 0x9000}}, {{0x8000, 0x8800}}, {}};
  const std::vector<KernelMemory> sums = ParseKernelMemory(smaps, sets);
  ASSERT_EQ(sums.size(), 4u);
  EXPECT_EQ(sums[0], (KernelMemory{24 << 10, 16 << 10}));
  EXPECT_EQ(sums[1], (KernelMemory{4 << 10, 4 << 10}));
  EXPECT_EQ(sums[2], KernelMemory());  // the mapping is larger
  EXPECT_EQ(sums[3], KernelMemory());
}

TEST(KernelMemoryTest, CountsWhatThisProcessTouched) {
  constexpr size_t kPage = 4096;
  constexpr size_t kBytes = 9 * kPage;
  void* place = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  auto* begin = static_cast<char*>(place) + kPage;
  ASSERT_EQ(mprotect(begin, 7 * kPage, PROT_READ | PROT_WRITE), 0);
  std::memset(begin, 1, 3 * kPage);
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const std::vector<std::vector<AddressRange>> sets = {{{address, address + 7 * kPage}}};
  const auto measured = ReadKernelMemory(sets);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(measured->front(), (KernelMemory{7 * kPage, 3 * kPage}));
  EXPECT_GT(ProcessResidentBytes(), int64_t{3 * kPage});
  munmap(place, kBytes);
}

}  // namespace
}  // namespace asymserve
