// What a server says of its memory, as a process.

#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "tests/server/process_fixture.h"
#include "tests/support/address_sanitizer.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;

class MemoryMetricsTest : public ProcessFixture {
 protected:
  /// Of the server's process, as the kernel says.
  double ResidentBytes() const {
    std::ifstream statm("/proc/" + std::to_string(server_->pid()) + "/statm");
    double size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
  }
};

TEST_F(MemoryMetricsTest, TheKernelCountsWhatWasPlannedBeforeAndUnderLoad) {
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=fit-2/2", "engine.max_running=16"}));
  const auto expect_as_planned = [&] {
    std::map<std::string, double> metrics = server_->Metrics();
    for (const std::string name : {"weights", "tables", "workspace", "kv"}) {
      const std::string label = "{class=\"" + name + "\"}";
      const double planned = metrics["asymserve_memory_planned_bytes" + label];
      EXPECT_GT(planned, 0) << name;
      EXPECT_NEAR(metrics["asymserve_memory_measured_bytes" + label], planned, 0.01 * planned);
      EXPECT_LE(metrics["asymserve_memory_resident_bytes" + label], 1.01 * planned) << name;
    }
    if (!kAddressSanitizer) {  // which keeps what was freed, and red zones around the rest
      EXPECT_LE(metrics["asymserve_memory_measured_bytes{class=\"runtime\"}"],
                metrics["asymserve_memory_planned_bytes{class=\"runtime\"}"]);
    }
    double ledger = 0, resident = metrics["asymserve_memory_measured_bytes{class=\"runtime\"}"];
    for (const auto& [name, value] : metrics) {
      if (name.starts_with("asymserve_memory_ledger_bytes{")) ledger += value;
      if (name.starts_with("asymserve_memory_resident_bytes{")) resident += value;
    }
    EXPECT_EQ(metrics["asymserve_memory_process_resident_bytes"], resident);
    EXPECT_NEAR(resident, ResidentBytes(), 0.2 * resident);
    EXPECT_EQ(ledger, std::stod(server_->LogValue("memory_plan", "budget")));
    return metrics["asymserve_memory_resident_bytes{class=\"kv\"}"];
  };
  const double before = expect_as_planned();
  std::vector<std::thread> clients;
  clients.reserve(32);
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&] { EXPECT_TRUE(Unary(Request("once upon a time", 200)).ok()); });
  }
  for (std::thread& client : clients) client.join();
  // The books are read again after five seconds.
  std::this_thread::sleep_for(std::chrono::milliseconds(5100));
  EXPECT_GT(expect_as_planned(), before);
}

TEST_F(MemoryMetricsTest, ABudgetThatHoldsNoSequenceRefusesToStart) {
  ServerProcess server(
      {"--model", model_path_, "--set", "engine.memory_bytes=100MiB", "--set", "metrics.address="});
  EXPECT_EQ(server.WaitForExit(), 1);
  EXPECT_THAT(server.log(), HasSubstr("engine.memory_bytes: 104857600 bytes (100 MiB) are less"));
  EXPECT_THAT(server.log(), HasSubstr("raise it to "));
}

}  // namespace
}  // namespace asymserve::testing
