#include "engine/runtime/host_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "tests/support/file_io.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

/// A machine's files, as its kernel would write them, in a directory of the test.
class HostMemoryTest : public ::testing::Test {
 protected:
  static constexpr int64_t kTotal = 1'000'000 * int64_t{1024};
  static constexpr int64_t kAvailable = 800'000 * int64_t{1024};

  HostMemoryTest() {
    Write("proc/meminfo",
          "MemTotal:        1000000 kB\n"
          "MemFree:          300000 kB\n"
          "MemAvailable:     800000 kB\n"
          "HugePages_Total:       0\n");
  }

  void Write(const std::string& name, std::string_view contents) const {
    std::filesystem::create_directories((directory_.path() / name).parent_path());
    WriteFile(directory_.Path(name), contents);
  }
  void Remove(const std::string& name) const {
    std::filesystem::remove_all(directory_.path() / name);
  }
  /// A file of a group, `group` with its controller if it is of version 1.
  void WriteGroup(const std::string& group, const std::string& file,
                  std::string_view contents) const {
    Write("sys/fs/cgroup" + group + "/" + file, contents);
  }
  /// What /proc says of this process.
  void Join(std::string_view lines) const { Write("proc/self/cgroup", lines); }

  HostFiles files() const {
    return {.sys = directory_.Path("sys"), .proc = directory_.Path("proc")};
  }
  int64_t available() const { return AvailableHostMemoryBytes(files()); }
  int64_t limit() const { return HostMemoryLimitBytes(files()); }

  void ExpectAllOfTheMachine() const {
    EXPECT_EQ(available(), kAvailable);
    EXPECT_EQ(limit(), kTotal);
  }

 private:
  TempDir directory_;
};

TEST_F(HostMemoryTest, WithoutAnyGroupIsWhatTheMachineHas) {
  ExpectAllOfTheMachine();
  Join("0::/\n");
  ExpectAllOfTheMachine();
}

TEST_F(HostMemoryTest, OfALimitedGroupIsItsLimitLessWhatItUses) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", "1000000\n");
  WriteGroup("/pod", "memory.current", "400000\n");
  EXPECT_EQ(available(), 600'000);
  EXPECT_EQ(limit(), 1'000'000);
}

TEST_F(HostMemoryTest, OfGroupsWithinGroupsTheOneThatLeavesLeastCounts) {
  Join("0::/outer/middle/inner\n");
  WriteGroup("/outer", "memory.max", "9000000\n");
  WriteGroup("/outer", "memory.current", "8900000\n");
  WriteGroup("/outer/middle", "memory.max", "5000000\n");
  WriteGroup("/outer/middle", "memory.current", "1000000\n");
  WriteGroup("/outer/middle/inner", "memory.max", "max\n");
  WriteGroup("/outer/middle/inner", "memory.current", "900000\n");
  EXPECT_EQ(available(), 100'000);  // the outermost, which others fill, too
  EXPECT_EQ(limit(), 5'000'000);

  WriteGroup("/outer/middle/inner", "memory.max", "950000\n");
  EXPECT_EQ(available(), 50'000);
  EXPECT_EQ(limit(), 950'000);
}

TEST_F(HostMemoryTest, OfGroupsWithoutALimitIsWhatTheMachineHas) {
  Join("0::/outer/inner\n");
  for (const char* group : {"/outer", "/outer/inner"}) {
    WriteGroup(group, "memory.max", "max\n");
    WriteGroup(group, "memory.current", "400000\n");
  }
  ExpectAllOfTheMachine();
}

TEST_F(HostMemoryTest, ALimitAboveWhatTheMachineHasChangesNothing) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", std::to_string(4 * kTotal));
  WriteGroup("/pod", "memory.current", "0\n");
  ExpectAllOfTheMachine();
}

TEST_F(HostMemoryTest, AGroupAboveItsLimitHasNoRoom) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", "1000000\n");
  WriteGroup("/pod", "memory.current", "1000001\n");
  EXPECT_EQ(available(), 0);
  EXPECT_EQ(limit(), 1'000'000);
}

TEST_F(HostMemoryTest, AContainerThatSeesItsOwnGroupAsTheRootIsHeldToThatOne) {
  Join("0::/kubepods/besteffort/pod1\n");  // the host's name of it, which is not there
  WriteGroup("", "memory.max", "1000000\n");
  WriteGroup("", "memory.current", "300000\n");
  EXPECT_EQ(available(), 700'000);
  EXPECT_EQ(limit(), 1'000'000);
}

TEST_F(HostMemoryTest, VersionOneIsReadUnderItsController) {
  Join(
      "12:cpu,cpuacct:/docker/other\n"
      "5:devices,memory:/docker/this\n"
      "1:name=systemd:/docker/other\n");
  WriteGroup("/memory/docker/other", "memory.limit_in_bytes", "1\n");  // of another controller
  WriteGroup("/memory/docker/other", "memory.usage_in_bytes", "1\n");
  WriteGroup("/memory/docker", "memory.limit_in_bytes", "9223372036854771712\n");  // none
  WriteGroup("/memory/docker", "memory.usage_in_bytes", "5000000\n");
  ExpectAllOfTheMachine();

  WriteGroup("/memory/docker/this", "memory.limit_in_bytes", "2000000\n");
  WriteGroup("/memory/docker/this", "memory.usage_in_bytes", "1500000\n");
  EXPECT_EQ(available(), 500'000);
  EXPECT_EQ(limit(), 2'000'000);

  WriteGroup("/memory/docker", "memory.limit_in_bytes", "5100000\n");
  EXPECT_EQ(available(), 100'000);
  EXPECT_EQ(limit(), 2'000'000);

  // A container sees its own group where the host has the root.
  Remove("sys/fs/cgroup/memory/docker");
  WriteGroup("/memory", "memory.limit_in_bytes", "3000000\n");
  WriteGroup("/memory", "memory.usage_in_bytes", "1000000\n");
  EXPECT_EQ(available(), 2'000'000);
  EXPECT_EQ(limit(), 3'000'000);
}

TEST_F(HostMemoryTest, FilesThatTheKernelWouldGiveUpDoNotCountAsUsed) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", "1000000\n");
  WriteGroup("/pod", "memory.current", "900000\n");
  WriteGroup("/pod", "memory.stat",
             "anon 500000\n"
             "file 400000\n"  // with those in memory only (shmem), which stay
             "shmem 100000\n"
             "inactive_file 200000\n"
             "active_file 50000\n"
             "unevictable 1000\n");
  EXPECT_EQ(available(), 350'000);
  EXPECT_EQ(limit(), 1'000'000);

  // The two files are not read at the same moment: never more than the limit.
  WriteGroup("/pod", "memory.current", "240000\n");
  EXPECT_EQ(available(), 1'000'000);
}

TEST_F(HostMemoryTest, ALimitThatIsNoNumberIsNone) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.current", "400000\n");
  for (const char* contents : {"", "\n", "max", "nonsense\n", "-1\n", "99999999999999999999\n"}) {
    SCOPED_TRACE(contents);
    WriteGroup("/pod", "memory.max", contents);
    ExpectAllOfTheMachine();
  }
}

TEST_F(HostMemoryTest, AGroupThatDoesNotSayWhatItUsesLeavesWhatTheMachineHas) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", "1000000\n");
  EXPECT_EQ(available(), kAvailable);
  for (const char* contents : {"", "nonsense\n", "-400000\n"}) {
    SCOPED_TRACE(contents);
    WriteGroup("/pod", "memory.current", contents);
    EXPECT_EQ(available(), kAvailable);
    EXPECT_EQ(limit(), 1'000'000);
  }
}

TEST_F(HostMemoryTest, WhatCannotBeReadOfTheFileCacheCountsAsUsed) {
  Join("0::/pod\n");
  WriteGroup("/pod", "memory.max", "1000000\n");
  WriteGroup("/pod", "memory.current", "400000\n");
  for (const char* contents : {"", "nonsense", "inactive_file\n", "anon many\n"}) {
    SCOPED_TRACE(contents);
    WriteGroup("/pod", "memory.stat", contents);
    EXPECT_EQ(available(), 600'000);
  }
}

TEST_F(HostMemoryTest, LinesThatNameNoGroupAreSkipped) {
  WriteGroup("/pod", "memory.max", "1000000\n");
  WriteGroup("/pod", "memory.current", "400000\n");
  const std::string nonsense = "\n:\n::\n0:\n0::\n0::pod\n0::/\n::::\nnonsense\n5:memory:pod\n";
  Join(nonsense);
  ExpectAllOfTheMachine();
  Join(nonsense + "0::/pod");  // and no end of the line
  EXPECT_EQ(available(), 600'000);
}

TEST_F(HostMemoryTest, WithoutTheMachinesNumbersIsWhatTheGroupLeaves) {
  Join("0::/pod\n");
  Write("proc/meminfo", "nonsense\nMemTotal: 1 kB\nMemAvailable: 1 kB\n");
  EXPECT_EQ(limit(), 0);
  WriteGroup("/pod", "memory.max", "1000\n");
  WriteGroup("/pod", "memory.current", "400\n");
  EXPECT_EQ(limit(), 1000);
  EXPECT_EQ(available(), 600);
  Remove("proc/meminfo");
  EXPECT_EQ(limit(), 1000);
  EXPECT_EQ(available(), 600);
}

/// Of as many cores as the test may use.
class AvailableCoresTest : public HostMemoryTest {
 protected:
  int32_t cores() const { return AvailableCores(files()); }
  const int32_t all_ = cores();  // no group is there yet
};

TEST_F(AvailableCoresTest, AQuotaIsRoundedToWholeCoresAndIsNeverNone) {
  EXPECT_GE(all_, 1);
  Join("0::/pod\n");
  const auto with_quota = [&](std::string_view quota) {
    WriteGroup("/pod", "cpu.max", quota);
    return cores();
  };
  EXPECT_EQ(with_quota("1000 100000\n"), 1);
  EXPECT_EQ(with_quota("100000 100000\n"), 1);
  EXPECT_EQ(with_quota("140000 100000\n"), 1);
  EXPECT_EQ(with_quota("160000 100000\n"), std::min(all_, 2));
  EXPECT_EQ(with_quota("1000000000 100000\n"), all_);
  for (const char* none : {"max 100000\n", "", "nonsense\n", "100000\n", "100000 0\n"}) {
    EXPECT_EQ(with_quota(none), all_) << none;
  }
}

TEST_F(AvailableCoresTest, OfGroupsWithinGroupsTheLeastQuotaCounts) {
  Join("0::/outer/inner\n");
  WriteGroup("/outer", "cpu.max", "100000 100000\n");
  WriteGroup("/outer/inner", "cpu.max", "max 100000\n");
  EXPECT_EQ(cores(), 1);
}

TEST_F(AvailableCoresTest, VersionOneIsReadUnderItsController) {
  Join("3:cpu,cpuacct:/docker/this\n4:memory:/docker/other\n");
  WriteGroup("/cpu/docker/other", "cpu.cfs_quota_us", "1000\n");
  WriteGroup("/cpu/docker/other", "cpu.cfs_period_us", "100000\n");
  WriteGroup("/cpu/docker/this", "cpu.cfs_quota_us", "-1\n");
  WriteGroup("/cpu/docker/this", "cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cores(), all_);
  WriteGroup("/cpu/docker/this", "cpu.cfs_quota_us", "50000\n");
  EXPECT_EQ(cores(), 1);
}

}  // namespace
}  // namespace asymserve::testing
