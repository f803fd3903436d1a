#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/layering/include_rules.h"

namespace asymserve {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string ReadFile(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

// Paths relative to the root of all files of the layered folders that `wanted` takes.
template <typename Wanted>
std::vector<std::string> FilesOfTheTree(Wanted wanted) {
  const fs::path root = ASYMSERVE_SOURCE_DIR;
  std::vector<std::string> paths;
  for (const char* folder : {"engine", "server", "config"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file() || !wanted(entry.path())) continue;
      paths.push_back(fs::relative(entry.path(), root).generic_string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool IsSource(const fs::path& path) {
  static const std::vector<std::string> extensions = {".h", ".cc", ".inc", ".cu", ".cuh"};
  return std::find(extensions.begin(), extensions.end(), path.extension()) != extensions.end();
}

TEST(LayeringTest, EveryIncludeOfTheTreeFollowsTheTableOfDependencies) {
  const std::vector<std::string> files = FilesOfTheTree(IsSource);
  EXPECT_GT(files.size(), 50u) << "the tree was not found";
  size_t includes = 0;
  for (const std::string& file : files) {
    const std::string source = ReadFile(fs::path(ASYMSERVE_SOURCE_DIR) / file);
    includes += ReadIncludes(source).size();
    EXPECT_THAT(CheckIncludes(ProjectLayers(), file, source), IsEmpty());
  }
  EXPECT_GT(includes, 5 * files.size() / 2) << "includes were not recognized";
}

TEST(LayeringTest, NoTargetOfTheEngineLinksTheServersLibraries) {
  const auto files = FilesOfTheTree([](const fs::path& path) {
    return path.filename() == "CMakeLists.txt" &&
           path.generic_string().find("/engine/") != std::string::npos;
  });
  EXPECT_GE(files.size(), 8u);
  for (const std::string& file : files) {
    std::string text = ReadFile(fs::path(ASYMSERVE_SOURCE_DIR) / file);
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const char* library : {"grpc", "protobuf", "yaml", "prometheus", "cli11"}) {
      EXPECT_EQ(text.find(library), std::string::npos) << file << " names " << library;
    }
  }
}

TEST(LayeringTest, EveryRowNamesAFolderOnce) {
  std::vector<std::string_view> folders;
  for (const LayerRule& rule : ProjectLayers().rules) folders.push_back(rule.folder);
  std::sort(folders.begin(), folders.end());
  EXPECT_EQ(std::adjacent_find(folders.begin(), folders.end()), folders.end());
}

TEST(IncludeRulesTest, ReadsEveryFormOfAnInclude) {
  const auto includes = ReadIncludes(
      "#include <vector>\n"
      "  #  include\t\"engine/base/log.h\"  // why\n"
      "// #include <map>\n"
      "int include;\n"
      "#include HWY_TARGET_INCLUDE\n"
      "#include <last>");
  ASSERT_EQ(includes.size(), 4u);
  EXPECT_EQ(includes[0].name, "vector");
  EXPECT_EQ(includes[1].name, "engine/base/log.h");
  EXPECT_EQ(includes[1].line, 2);
  EXPECT_EQ(includes[2].name, "HWY_TARGET_INCLUDE");
  EXPECT_EQ(includes[3].line, 6);
}

struct Case {
  const char* path;
  const char* include;  // with its quotes or brackets
};

std::vector<std::string> Check(const Case& planted) {
  return CheckIncludes(ProjectLayers(), planted.path,
                       std::string("#pragma once\n#include ") + planted.include + "\n");
}

TEST(IncludeRulesTest, FindsPlantedViolationsOfEveryRow) {
  const Case kPlanted[] = {
      {"engine/base/queue.h", "\"engine/kv/ids.h\""},
      {"engine/base/queue.h", "<spdlog/spdlog.h>"},
      {"engine/base/log.h", "\"spdlog/spdlog.h\""},
      {"engine/kv/page_store.cc", "\"engine/backend/backend.h\""},
      {"engine/kv/page_store.cc", "<sys/mman.h>"},
      {"engine/sched/scheduler.cc", "\"engine/model/model.h\""},
      {"engine/sched/scheduler.cc", "\"engine/backend/backend.h\""},
      {"engine/sched/scheduler.cc", "<chrono>"},
      {"engine/sched/scheduler.h", "<mutex>"},
      {"engine/backend/backend.h", "\"engine/backend/cpu/cpu_backend.h\""},
      {"engine/backend/backend.h", "\"dnnl.hpp\""},
      {"engine/backend/cpu/matmul.cc", "\"engine/model/model.h\""},
      {"engine/backend/cpu/matmul.cc", "\"engine/sched/scheduler.h\""},
      {"engine/backend/cpu/matmul.cc", "<cuda_runtime.h>"},
      {"engine/model/llama.cc", "\"engine/backend/cpu/cpu_backend.h\""},
      {"engine/model/llama.cc", "\"engine/runtime/engine.h\""},
      {"engine/text/tokenizer.cc", "\"engine/model/model.h\""},
      {"engine/text/tokenizer.cc", "\"grpcpp/grpcpp.h\""},
      {"engine/quality/search.cc", "\"engine/sched/scheduler.h\""},
      {"engine/runtime/engine.cc", "\"engine/backend/cpu/cpu_backend.h\""},
      {"engine/runtime/engine.cc", "<prometheus/counter.h>"},
      {"engine/runtime/engine.cc", "\"asymserve/v1/inference.pb.h\""},
      {"engine/runtime/engine.cc", "\"config/config.h\""},
      {"engine/runtime/engine.cc", "<yaml-cpp/yaml.h>"},
      {"config/config.cc", "\"engine/runtime/engine.h\""},
      {"config/config.cc", "<grpcpp/grpcpp.h>"},
      {"server/serve.cc", "\"engine/backend/cpu/cpu_backend.h\""},
      {"server/serve.cc", "\"engine/backend/backend.h\""},
      {"server/serve.cc", "\"engine/sched/scheduler.h\""},
      {"server/serve.cc", "<yaml-cpp/yaml.h>"},
      {"server/serve.cc", "\"serve.h\""},
      {"engine/text/x.cc", "\"../base/log.h\""},
      {"engine/text/x.cc", "<boost/any.hpp>"},
      {"engine/backend/cuda/attention.cu", "\"engine/base/log.h\""},
      {"engine/backend/cuda/attention.cuh", "\"absl/status/status.h\""},
      {"engine/backend/cuda/attention.cu", "<iostream>"},
      {"engine/backend/cuda/attention.cu", "\"engine/kv/page_store.h\""},
      {"engine/backend/cuda/attention.cu", "\"engine/kv/codec.h\""},
  };
  for (const Case& planted : kPlanted) {
    EXPECT_EQ(Check(planted).size(), 1u) << planted.path << " includes " << planted.include;
  }
}

TEST(IncludeRulesTest, NamesTheFileTheLineAndTheHeader) {
  EXPECT_THAT(Check({"engine/kv/a.h", "\"server/serve.h\""}),
              ElementsAre("engine/kv/a.h:2: must not include server/serve.h"));
}

TEST(IncludeRulesTest, AllowsWhatTheTableAllows) {
  const Case kAllowed[] = {
      {"engine/base/log.cc", "\"spdlog/spdlog.h\""},
      {"engine/base/thread_pool.cc", "<linux/futex.h>"},
      {"engine/base/thread_pool.cc", "<thread>"},
      {"engine/sched/scheduler.cc", "\"engine/kv/page_store.h\""},
      {"engine/backend/cpu/matmul.cc", "\"engine/backend/cpu/kernels.h\""},
      {"engine/backend/cpu/matmul.cc", "\"engine/backend/backend.h\""},
      {"engine/model/gguf.cc", "\"engine/text/tokenizer_spec.h\""},
      {"engine/model/gguf.cc", "<nlohmann/json.hpp>"},
      {"server/main.cc", "\"engine/backend/cpu/cpu_backend.h\""},
      {"server/serve.cc", "\"engine/runtime/engine.h\""},
      {"server/serve.cc", "\"asymserve/v1/inference.grpc.pb.h\""},
      {"engine/backend/cuda/attention.cu", "<cuda_runtime.h>"},
      {"engine/backend/cuda/attention.cu", "\"engine/base/tensor.h\""},
      {"engine/backend/cuda/attention.cu", "\"engine/kv/block_format.h\""},
      {"engine/backend/cuda/attention.cu", "<cstdint>"},
      {"tests/engine/text/x_test.cc", "\"engine/backend/cpu/cpu_backend.h\""},
  };
  for (const Case& allowed : kAllowed) EXPECT_THAT(Check(allowed), IsEmpty());
}

TEST(IncludeRulesTest, RefusesAFolderOfTheEngineWithoutARow) {
  EXPECT_THAT(CheckIncludes(ProjectLayers(), "engine/utils/x.h", ""),
              ElementsAre("engine/utils/x.h: its folder has no row in the table of dependencies"));
  EXPECT_THAT(CheckIncludes(ProjectLayers(), "engine/x.h", ""),
              ElementsAre("engine/x.h: its folder has no row in the table of dependencies"));
}

}  // namespace
}  // namespace asymserve
