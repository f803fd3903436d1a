#include "tests/layering/include_rules.h"

#include <algorithm>
#include <cctype>

namespace asymserve {
namespace {

using Prefixes = std::vector<std::string_view>;

bool StartsWithOneOf(std::string_view name, const Prefixes& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

bool IsOneOf(std::string_view name, const Prefixes& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// C++ standard headers have neither a folder nor an extension.
bool IsStandard(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return std::islower(static_cast<unsigned char>(c)) != 0 || c == '_' ||
           std::isdigit(static_cast<unsigned char>(c)) != 0;
  });
}

bool IsProject(std::string_view name) {
  static const Prefixes roots = {"engine/", "server/", "config/",    "proto/",
                                 "tests/",  "bench/",  "asymserve/", "tools/"};
  return StartsWithOneOf(name, roots);
}

// Files directly in `folder` only: a row of its own may follow for a folder inside it.
bool InFolder(std::string_view name, std::string_view folder) {
  return name.starts_with(folder) && name.substr(folder.size()).find('/') == name.npos;
}

const LayerRule* FindRule(const LayerTable& table, std::string_view path) {
  if (path.ends_with(".cu") || path.ends_with(".cuh")) return &table.device_code;
  const LayerRule* best = nullptr;
  for (const LayerRule& rule : table.rules) {
    const bool longer = best == nullptr || rule.folder.size() > best->folder.size();
    if (path.starts_with(rule.folder) && longer) best = &rule;
  }
  return best;
}

bool IsAllowed(const LayerRule& rule, const FileException* exception, std::string_view name) {
  if (IsProject(name)) {
    if (!rule.folder.empty() && InFolder(name, rule.folder)) return true;
    if (StartsWithOneOf(name, rule.project)) return true;
    return exception != nullptr && StartsWithOneOf(name, exception->project);
  }
  if (IsStandard(name)) return !IsOneOf(name, rule.refused);
  if (StartsWithOneOf(name, rule.external)) return true;
  return exception != nullptr && StartsWithOneOf(name, exception->external);
}

const Prefixes kPosix = {"sys/",      "linux/",  "unistd.h", "fcntl.h",  "signal.h",
                         "pthread.h", "poll.h",  "sched.h",  "string.h", "netinet/",
                         "arpa/",     "netdb.h", "malloc.h"};

Prefixes Join(std::initializer_list<Prefixes> lists) {
  Prefixes all;
  for (const Prefixes& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

LayerTable MakeProjectLayers() {
  const Prefixes absl_status = {"absl/status/", "absl/strings/"};
  const Prefixes model_libraries = Join({{"absl/", "nlohmann/", "pcre2.h", "utf8proc.h"}, kPosix});
  const Prefixes no_threads = {"thread", "mutex",  "shared_mutex", "condition_variable",
                               "future", "atomic", "stop_token",   "semaphore"};
  LayerTable table;
  table.rules = {
      {"engine/base/", {}, Join({{"absl/"}, kPosix}), {}},
      {"engine/kv/", {"engine/base/"}, absl_status, {}},
      {"engine/sched/",
       {"engine/base/", "engine/kv/"},
       absl_status,
       Join({no_threads, {"chrono", "ctime"}})},
      {"engine/backend/", {"engine/base/", "engine/kv/"}, {"absl/"}, {}},
      {"engine/backend/cpu/",
       {"engine/base/", "engine/kv/", "engine/backend/backend.h", "engine/backend/attention_plan.h",
        "engine/backend/kv_checks.h", "engine/backend/operation_checks.h"},
       Join({{"absl/", "immintrin.h", "cpuid.h"}, kPosix}),
       {}},
      {"engine/backend/cuda/",
       {"engine/base/", "engine/kv/", "engine/backend/backend.h", "engine/backend/attention_plan.h",
        "engine/backend/kv_checks.h", "engine/backend/operation_checks.h",
        "engine/backend/cuda_module.h", "engine/backend/token_draw.h"},
       Join({{"absl/", "cuda", "cublas"}, kPosix}),
       {}},
      // A model file carries its tokenizer, hence text under model.
      {"engine/model/",
       {"engine/base/", "engine/kv/", "engine/backend/backend.h", "engine/backend/token_draw.h",
        "engine/text/"},
       model_libraries,
       {}},
      {"engine/text/", {"engine/base/"}, model_libraries, {}},
      {"engine/quality/",
       {"engine/base/", "engine/kv/", "engine/backend/backend.h", "engine/model/", "engine/text/"},
       Join({{"absl/", "nlohmann/"}, kPosix}),
       {}},
      {"engine/runtime/",
       {"engine/base/", "engine/kv/", "engine/sched/", "engine/backend/backend.h",
        "engine/backend/attention_plan.h", "engine/backend/token_draw.h", "engine/model/",
        "engine/text/", "engine/quality/"},
       Join({{"absl/"}, kPosix}),
       {}},
      {"config/", {"engine/base/"}, {"absl/", "yaml-cpp/"}, {}},
      {"server/",
       {"engine/base/", "engine/kv/", "engine/runtime/", "engine/text/", "engine/quality/",
        "config/", "proto/", "asymserve/"},
       Join({{"absl/", "grpcpp/", "grpc/", "google/protobuf/", "openssl/", "prometheus/", "CLI/"},
             kPosix}),
       {}},
  };
  table.exceptions = {
      {"engine/base/log.cc", {}, {"spdlog/", "utf8proc.h"}},
      {"engine/backend/cuda_library.cc", {}, {"dlfcn.h", "elf.h"}},
      {"server/main.cc", {"engine/backend/"}, {}},
  };
  table.device_code = {
      "",
      {"engine/base/tensor.h", "engine/base/float16.h", "engine/base/philox.h",
       "engine/base/exp_non_positive.h", "engine/backend/token_draw.h", "engine/kv/ids.h",
       "engine/kv/item.h", "engine/kv/page.h", "engine/kv/block_format.h", "engine/kv/hadamard.h",
       "engine/kv/quantizer.h", "engine/kv/seal_op.h", "engine/backend/attention_plan.h",
       "engine/backend/cuda/"},
      {"cuda", "mma.h", "cooperative_groups"},
      Join({no_threads, {"iostream", "ostream", "fstream", "sstream", "string", "map"}})};
  return table;
}

}  // namespace

const LayerTable& ProjectLayers() {
  static const LayerTable table = MakeProjectLayers();
  return table;
}

std::vector<Include> ReadIncludes(std::string_view source) {
  std::vector<Include> includes;
  const auto skip_space = [](std::string_view text) {
    const size_t begin = text.find_first_not_of(" \t");
    return begin == text.npos ? std::string_view() : text.substr(begin);
  };
  int number = 0;
  while (!source.empty()) {
    ++number;
    const size_t newline = source.find('\n');
    std::string_view line = skip_space(source.substr(0, newline));
    source = newline == source.npos ? std::string_view() : source.substr(newline + 1);
    if (!line.starts_with('#')) continue;
    line = skip_space(line.substr(1));
    if (!line.starts_with("include")) continue;
    line = skip_space(line.substr(std::string_view("include").size()));
    if (line.empty()) continue;
    const char close = line[0] == '<' ? '>' : line[0] == '"' ? '"' : ' ';
    if (close != ' ') line.remove_prefix(1);
    includes.push_back({number, std::string(line.substr(0, line.find(close)))});
  }
  return includes;
}

std::vector<std::string> CheckIncludes(const LayerTable& table, std::string_view path,
                                       std::string_view source) {
  const std::string where(path);
  const LayerRule* rule = FindRule(table, path);
  if (rule == nullptr) {
    const bool is_layered = StartsWithOneOf(path, {"engine/", "server/", "config/"});
    if (!is_layered) return {};
    return {where + ": its folder has no row in the table of dependencies"};
  }
  const auto found = std::find_if(table.exceptions.begin(), table.exceptions.end(),
                                  [&](const FileException& e) { return e.file == path; });
  const FileException* exception = found == table.exceptions.end() ? nullptr : &*found;
  std::vector<std::string> violations;
  for (const Include& include : ReadIncludes(source)) {
    if (IsAllowed(*rule, exception, include.name)) continue;
    violations.push_back(where + ":" + std::to_string(include.line) + ": must not include " +
                         include.name);
  }
  return violations;
}

}  // namespace asymserve
