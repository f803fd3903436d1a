#include "engine/backend/cpu/memory_region.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/cpu_memory.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

AlignedBuffer Allocate(const std::shared_ptr<MemoryRegion>& region, int64_t bytes) {
  auto buffer = AlignedBuffer::Allocate(region, bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

/// KiB in huge pages between two addresses, by /proc/self/smaps.
int64_t HugeKib(AddressRange range) {
  std::ifstream smaps("/proc/self/smaps");
  int64_t sum = 0;
  bool within = false;
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream in(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    if (line.find(':') > line.find(' ') && in >> std::hex >> begin >> dash >> end) {
      within = begin >= range.begin && end <= range.end;
    } else if (within && line.starts_with("AnonHugePages:")) {
      sum += std::stoll(line.substr(line.find(':') + 1));
    }
  }
  return sum;
}

/// Whether it has some to spare just now.
bool SystemCanJoinPages() {
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string allowed;
  std::getline(setting, allowed);
  if (allowed.empty() || allowed.find("[never]") != std::string::npos) return false;
  constexpr size_t kHuge = size_t{2} << 20;
  constexpr size_t kPages = 8;
  const size_t bytes = (kPages + 1) * kHuge;
  void* place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) return false;
  const size_t offset = (kHuge - reinterpret_cast<uintptr_t>(place) % kHuge) % kHuge;
  char* first = static_cast<char*>(place) + offset;
  for (size_t page = 0; page < kPages; ++page) first[page * kHuge] = 1;
  const bool can = madvise(first, kPages * kHuge, 25 /* MADV_COLLAPSE */) == 0;
  munmap(place, bytes);
  return can;
}

bool IsZero(const AlignedBuffer& buffer) {
  return std::all_of(buffer.data(), buffer.data() + buffer.bytes(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

TEST(MemoryRegionTest, RandomBuffersAreZeroedApartAndLeaveNothingBehind) {
  const auto region = std::make_shared<MemoryRegion>("asymserve_test");
  std::mt19937 random(7);
  std::vector<std::pair<AlignedBuffer, std::byte>> held;
  for (int i = 0; i < 2000; ++i) {
    if (held.size() < 20 || random() % 2 == 0) {
      const int64_t bytes = 1 + static_cast<int64_t>(random() % (random() % 3 == 0 ? 300000 : 300));
      AlignedBuffer buffer = Allocate(region, bytes);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
      ASSERT_TRUE(IsZero(buffer)) << i;
      const auto mark = static_cast<std::byte>(1 + i % 255);
      std::fill_n(buffer.data(), bytes, mark);
      held.emplace_back(std::move(buffer), mark);
    } else {
      const size_t victim = random() % held.size();
      const auto& [buffer, mark] = held[victim];
      ASSERT_EQ(std::count(buffer.data(), buffer.data() + buffer.bytes(), mark), buffer.bytes());
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(victim));
    }
  }
  EXPECT_GT(region->mapped_bytes(), 0);
  held.clear();
  EXPECT_EQ(region->mapped_bytes(), 0);
  EXPECT_TRUE(region->ranges().empty());
}

TEST(MemoryRegionTest, MapsItsBuffersAndNoMoreThanTheRestOfAPage) {
  const auto region = std::make_shared<MemoryRegion>("asymserve_test");
  std::vector<AlignedBuffer> held;
  int64_t carved = 0;
  for (const int64_t bytes : {1, 64, 65, 5000, 1 << 20, 3}) {
    held.push_back(Allocate(region, bytes));
    carved += MemoryRegion::CarvedBytes(bytes);
    EXPECT_EQ(region->mapped_bytes(), MemoryRegion::MappedBytes(carved));
  }
  ASSERT_EQ(region->ranges().size(), 1u);
}

TEST(MemoryRegionTest, RefusesWhatTheSystemDoesNotHave) {
  const auto region = std::make_shared<MemoryRegion>("asymserve_test");
  const auto buffer = AlignedBuffer::Allocate(region, int64_t{1} << 60);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(region->mapped_bytes(), 0);
}

TEST(MemoryRegionTest, SmallBuffersThatWereWrittenOneByOneAreJoinedIntoHugePages) {
  const auto region = std::make_shared<MemoryRegion>("asymserve_test");
  std::vector<AlignedBuffer> held;
  for (int i = 0; i < 96; ++i) {
    held.push_back(Allocate(region, 100 << 10));
    std::memset(held.back().data(), i + 1, static_cast<size_t>(held.back().bytes()));
  }
  const int64_t mapped = region->mapped_bytes();
  region->JoinPages();
  EXPECT_EQ(region->mapped_bytes(), mapped);
  for (int i = 0; i < 96; ++i) {
    const AlignedBuffer& buffer = held[static_cast<size_t>(i)];
    ASSERT_EQ(std::count(buffer.data(), buffer.data() + buffer.bytes(), std::byte(i + 1)),
              buffer.bytes());
  }
  if (!SystemCanJoinPages()) GTEST_SKIP() << "before Linux 6.1, or no huge page is free";
  constexpr int64_t kHuge = int64_t{2} << 20;
  EXPECT_EQ(HugeKib(region->ranges().at(0)), mapped / kHuge * kHuge / 1024);
}

TEST(CpuMemoryTest, TheKernelCountsEachClassApart) {
  const CpuMemory memory;
  const AlignedBuffer weights = Allocate(memory.region(MemoryClass::kWeights), 3 << 20);
  const AlignedBuffer more = Allocate(memory.region(MemoryClass::kWeights), 100);
  const AlignedBuffer kv = Allocate(memory.region(MemoryClass::kKv), 40 << 10);
  std::memset(weights.data(), 1, static_cast<size_t>(weights.bytes()));
  more.data()[0] = std::byte{1};
  kv.data()[5000] = std::byte{1};
  const auto use = memory.Measure();
  ASSERT_TRUE(use.ok()) << use.status();
  EXPECT_EQ(use->mapped, memory.mapped());
  EXPECT_EQ(use->resident[MemoryClass::kWeights], use->mapped[MemoryClass::kWeights]);
  EXPECT_GT(use->resident[MemoryClass::kKv], 0);
  EXPECT_LT(use->resident[MemoryClass::kKv], use->mapped[MemoryClass::kKv]);
  EXPECT_EQ(use->mapped[MemoryClass::kTables], 0);
  ASSERT_TRUE(memory.region(MemoryClass::kKv)->Populate().ok());
  EXPECT_EQ(memory.Measure()->resident[MemoryClass::kKv], use->mapped[MemoryClass::kKv]);
}

}  // namespace
}  // namespace asymserve
