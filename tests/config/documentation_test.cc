#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/option.h"
#include "config/yaml_entries.h"

// config/asymserve.yaml is the documentation of the options: complete, and true to the defaults.

namespace asymserve {
namespace {

constexpr char kReference[] = ASYMSERVE_SOURCE_DIR "/config/asymserve.yaml";

std::string ReadText(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(ReferenceConfigTest, HasEveryOptionAndNoOther) {
  const auto entries = ReadYamlEntries(ReadText(kReference), kReference);
  ASSERT_TRUE(entries.ok()) << entries.status();
  std::set<std::string> documented;
  for (const YamlEntry& entry : *entries) {
    if (entry.kind != YamlEntry::Kind::kMap) documented.insert(entry.key);
  }
  std::set<std::string> known;
  for (const Option& option : Options()) known.emplace(option.key);
  EXPECT_EQ(documented, known);
  EXPECT_EQ(known.size(), Options().size());
}

TEST(ReferenceConfigTest, ItsValuesAreTheDefaults) {
  const auto config = LoadConfig(kReference);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, Config());
}

TEST(ReferenceConfigTest, EveryOptionHasACommentAboveIt) {
  const std::string text = ReadText(kReference);
  const std::vector<std::string> lines = Lines(text);
  const auto entries = ReadYamlEntries(text, kReference);
  ASSERT_TRUE(entries.ok()) << entries.status();
  for (const YamlEntry& entry : *entries) {
    if (entry.kind == YamlEntry::Kind::kMap) continue;
    ASSERT_GE(entry.line, 2);
    const std::string& above = lines.at(static_cast<size_t>(entry.line) - 2);
    const auto depth = std::count(entry.key.begin(), entry.key.end(), '.');
    const std::string comment = std::string(2 * static_cast<size_t>(depth), ' ') + "# ";
    EXPECT_EQ(above.substr(0, comment.size()), comment) << entry.key << " at line " << entry.line;
  }
}

TEST(ReferenceConfigTest, EveryRangeIsDocumentedAsItIsChecked) {
  const std::string text = ReadText(kReference);
  const std::vector<std::string> lines = Lines(text);
  const auto entries = ReadYamlEntries(text, kReference);
  ASSERT_TRUE(entries.ok()) << entries.status();
  for (const YamlEntry& entry : *entries) {
    if (entry.kind == YamlEntry::Kind::kMap) continue;
    Config config;
    YamlEntry wrong = entry;
    wrong.kind = YamlEntry::Kind::kList;
    const std::string message(Assign(config, wrong).message());
    const size_t from = message.find(" from ");
    if (from == std::string::npos) continue;
    const size_t begin = from + 6;
    const std::string range = message.substr(begin, message.find(", got") - begin);
    const std::string& above = lines.at(static_cast<size_t>(entry.line) - 2);
    EXPECT_NE(above.find(range + "."), std::string::npos) << entry.key << ": " << range;
  }
}

TEST(ShippedConfigTest, TheDefaultModelsFileIsValid) {
  const auto config = LoadConfig(ASYMSERVE_SOURCE_DIR "/config/smollm2.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateConfig(*config).ok());
  EXPECT_FALSE(config->model.path.empty());
}

}  // namespace
}  // namespace asymserve
