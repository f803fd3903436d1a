// What a server runs on (engine.device), as a process, with libraries of the CUDA backend of all
// kinds.

#include <gmock/gmock.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>

#include "tests/server/process_fixture.h"
#include "tests/support/file_io.h"

namespace asymserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr bool kBuildsCudaLibrary = TEST_BUILDS_CUDA_LIBRARY;

class DeviceTest : public ProcessFixture {
 protected:
  /// An installation of its own, of the executable and of `library`, if that is not empty.
  void Install(const std::string& library) {
    std::filesystem::create_directories(directory_.Path("bin"));
    std::filesystem::create_directories(directory_.Path("lib/asymserve"));
    std::filesystem::copy_file(ASYMSERVE_BINARY, binary_,
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::remove(library_);
    if (!library.empty()) std::filesystem::copy_file(library, library_);
  }

  void Run(const std::string& binary, const std::string& device,
           const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments = {
        "--model", model_path_, "--set", "engine.threads=1", "--set", "engine.device=" + device};
    for (const std::string& option : options) {
      arguments.emplace_back("--set");
      arguments.push_back(option);
    }
    server_ = std::make_unique<ServerProcess>(arguments, binary);
  }
  void ServeInstalled(const std::string& device) {
    Run(binary_, device, {"engine.kv_memory_bytes=16MiB"});
    ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
    stub_ = server_->Stub();
  }
  std::string RefusalOf(const std::string& binary, const std::string& device) {
    Run(binary, device);
    EXPECT_EQ(server_->WaitForExit(), 1);
    EXPECT_THAT(server_->log(), Not(HasSubstr(" serving address=")));
    return server_->log();
  }
  /// Cuda refuses to start, auto serves on the CPU; both say `why`, auto at this level.
  void ExpectNoCuda(const std::string& binary, const std::string& why, const char* level) {
    EXPECT_THAT(RefusalOf(binary, "cuda"),
                AllOf(HasSubstr("engine.device: cuda: " + why),
                      HasSubstr("engine.device=cpu or auto serves on the CPU")));
    Run(binary, "auto", {"engine.kv_memory_bytes=16MiB"});
    ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
    EXPECT_THAT(server_->log(), HasSubstr(std::string(level) + " no_cuda reason=\"" + why));
    EXPECT_EQ(server_->LogValue("device", "name").substr(0, 4), "\"cpu");
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0);
  }

  v1::GetModelInfoResponse Info() {
    grpc::ClientContext context;
    v1::GetModelInfoResponse info;
    EXPECT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
    return info;
  }
  std::string TextOf(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    const grpc::Status status = stub_->GenerateUnary(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.sequences_size() == 1 ? response.sequences(0).text() : "";
  }

  const std::string binary_ = directory_.Path("bin/asymserve");
  const std::string library_ = directory_.Path("lib/asymserve/libasymserve_cuda.so");
};

TEST_F(DeviceTest, WithoutAGpuCudaRefusesAndAutoServesOnTheCpu) {
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there is a GPU";
  ExpectNoCuda(ASYMSERVE_BINARY, kBuildsCudaLibrary ? "no GPU: " : "no CUDA library: ", "info");
}

TEST_F(DeviceTest, TheCpuIsTakenWithoutLookingForAGpu) {
  ASSERT_NO_FATAL_FAILURE(Start({"engine.device=cpu", "engine.isa=portable"}));
  EXPECT_THAT(server_->log(), Not(HasSubstr("no_cuda")));
  EXPECT_THAT(server_->log(), HasSubstr("device name=\"cpu (portable)\""));
  EXPECT_EQ(Info().device(), "cpu (portable)");
  EXPECT_EQ(server_->Metrics()["asymserve_device_info{device=\"cpu (portable)\"}"], 1);
}

TEST_F(DeviceTest, AMissingLibraryIsNamedWithItsPlace) {
  Install("");
  ExpectNoCuda(binary_, "no CUDA library: " + library_ + " does not exist; ", "info");
  EXPECT_THAT(server_->log(),
              HasSubstr(kBuildsCudaLibrary ? "install it there" : "this build made none"));
}

TEST_F(DeviceTest, ALibraryThatIsNoneIsRefused) {
  Install("");
  WriteFile(library_, "not a library");
  ExpectNoCuda(binary_, "the CUDA library cannot be loaded: " + library_ + ": ", "warn");
}

TEST_F(DeviceTest, ALibraryThatIsCutShortIsRefused) {
  Install(TEST_OTHER_BUILD_MODULE);
  std::filesystem::resize_file(library_, 1000);
  ExpectNoCuda(binary_, "the CUDA library cannot be loaded: " + library_ + ": ", "warn");
}

TEST_F(DeviceTest, ALibraryOfSomethingElseIsRefused) {
  Install(TEST_STRANGER_MODULE);
  ExpectNoCuda(binary_, "the CUDA library " + library_ + " does not export asymserve_cuda_module",
               "warn");
}

TEST_F(DeviceTest, ALibraryOfAnotherBuildIsRefusedWithBothBuilds) {
  Install(TEST_OTHER_BUILD_MODULE);
  ExpectNoCuda(binary_,
               "the CUDA library " + library_ +
                   " is of another build: interface 1, build 0.0.1-another; this executable needs "
                   "interface 1, build 0.1.0-",
               "warn");
}

TEST_F(DeviceTest, ALibraryWithAnotherInterfaceIsRefused) {
  Install(TEST_OTHER_INTERFACE_MODULE);
  ExpectNoCuda(binary_, "the CUDA library " + library_ + " is of another build: interface 2, ",
               "warn");
}

// ---- A library that has a device: the kernels on tests/simt -------------------------------------

class SimtDeviceTest : public DeviceTest {
 protected:
  void SetUp() override {
    if (std::string(TEST_SIMT_MODULE).empty()) GTEST_SKIP() << "not in this build";
    Install(TEST_SIMT_MODULE);
  }
  void TearDown() override { unsetenv("ASYMSERVE_FAKE_DEVICE"); }
};

TEST_F(SimtDeviceTest, CudaAndAutoServeOnTheDeviceThatTheLibraryHas) {
  const v1::GenerateRequest request = Request("once upon a time", 4);
  std::string text;
  for (const char* device : {"cuda", "auto"}) {
    ASSERT_NO_FATAL_FAILURE(ServeInstalled(device));
    EXPECT_THAT(server_->log(), HasSubstr("device name=\"cuda (fake)\""));
    EXPECT_THAT(server_->log(), Not(HasSubstr("no_cuda")));
    EXPECT_EQ(Info().device(), "cuda (fake)");
    auto metrics = server_->Metrics();
    EXPECT_EQ(metrics["asymserve_device_info{device=\"cuda (fake)\"}"], 1);
    const double total = metrics["asymserve_device_memory_bytes{state=\"total\"}"];
    const double free = metrics["asymserve_device_memory_bytes{state=\"free\"}"];
    EXPECT_EQ(total, 1 << 30);
    EXPECT_GT(free, 0);
    EXPECT_GE(total - free, metrics["asymserve_memory_measured_bytes{class=\"kv\"}"]);
    EXPECT_GE(total - free, 16 << 20);
    text = TextOf(request);
    EXPECT_NE(text, "");
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0);
  }
  ASSERT_NO_FATAL_FAILURE(ServeInstalled("cpu"));
  EXPECT_EQ(TextOf(request), text);
}

TEST_F(SimtDeviceTest, AGpuThatFailsIsNotTakenForNone) {
  setenv("ASYMSERVE_FAKE_DEVICE", "broken", 1);
  for (const char* device : {"cuda", "auto"}) {
    EXPECT_THAT(RefusalOf(binary_, device), HasSubstr("engine.device: " + std::string(device) +
                                                      ": cuda: counting GPUs: broken"));
  }
}

}  // namespace
}  // namespace asymserve::testing
