#include "config/schema.h"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "config/option.h"
#include "config/reference.h"
#include "config/yaml_entries.h"

namespace asymserve {
namespace {

using nlohmann::json;

json Schema() {
  return json::parse(ConfigSchema());
}

/// The schema of an option or of a section.
json At(const json& schema, const std::string& key) {
  json node = schema;
  std::istringstream names(key);
  for (std::string name; std::getline(names, name, '.');) node = node["properties"].at(name);
  return node;
}

void CollectOptions(const json& section, const std::string& prefix, std::set<std::string>& keys) {
  EXPECT_EQ(section["additionalProperties"], false) << prefix;
  EXPECT_EQ(section["type"], json({"object", "null"})) << prefix;
  for (const auto& [name, child] : section["properties"].items()) {
    if (child.contains("properties")) {
      CollectOptions(child, prefix + name + ".", keys);
    } else {
      keys.insert(prefix + name);
    }
  }
}

TEST(SchemaTest, HasEveryOptionAndNoOtherAndAllowsNoOther) {
  const json schema = Schema();
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  std::set<std::string> described, known;
  CollectOptions(schema, "", described);
  for (const Option& option : Options()) known.emplace(option.key);
  EXPECT_EQ(described, known);
}

TEST(SchemaTest, TypesAndRangesAreThoseOfTheTable) {
  const json schema = Schema();
  for (const Option& option : Options()) {
    const json node = At(schema, std::string(option.key));
    std::visit(
        [&](auto member) {
          Config config;
          using T = std::remove_cvref_t<decltype(member(config))>;
          json type = "string";
          if constexpr (std::is_same_v<T, bool>) type = "boolean";
          if constexpr (std::is_same_v<T, int32_t>) type = "integer";
          if constexpr (std::is_same_v<T, int64_t>) type = json::parse(R"(["integer", "string"])");
          if constexpr (std::is_same_v<T, double>) type = "number";
          const bool text = std::is_same_v<T, std::string>;
          const bool restricted = node.contains("enum") || node.contains("pattern");
          if (text && !restricted) {
            type = json::parse(R"(["string", "number", "boolean"])");
          }
          EXPECT_EQ(node["type"], type) << option.key;
          const bool number = !text && !std::is_same_v<T, bool>;
          ASSERT_EQ(node.contains("minimum"), number) << option.key;
          ASSERT_EQ(node.contains("maximum"), number) << option.key;
          if (!number) return;
          EXPECT_EQ(node["minimum"].get<double>(), option.min) << option.key;
          EXPECT_EQ(node["maximum"].get<double>(), option.max) << option.key;
        },
        option.member);
    const json choices = node.value("enum", json::array());
    ASSERT_EQ(choices.size(), option.choices.size()) << option.key;
    for (size_t i = 0; i < choices.size(); ++i) EXPECT_EQ(choices[i], option.choices[i]);
    EXPECT_TRUE(option.format == Option::Format::kFree || node.contains("pattern")) << option.key;
  }
}

TEST(SchemaTest, EveryDefaultIsWhatTheServerTakesWhereNothingIsSaid) {
  const json schema = Schema();
  for (const Option& option : Options()) {
    const json value = At(schema, std::string(option.key))["default"];
    YamlEntry entry;
    entry.key = std::string(option.key);
    const bool quoted = value.is_string();
    entry.kind = quoted ? YamlEntry::Kind::kQuoted : YamlEntry::Kind::kPlain;
    entry.text = quoted ? value.get<std::string>() : value.dump();
    Config config;
    std::visit([&](auto member) { member(config) = {}; }, option.member);
    const absl::Status status = Assign(config, entry);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(config, Config()) << option.key << ": " << value;
  }
}

TEST(SchemaTest, APatternMatchesWhatTheServerTakesAndNothingElse) {
  const json schema = Schema();
  const char* texts[] = {
      "",        "a:1",      "a:65535",     "a:65536",     "a:99999",   "a:100000", "a:00080",
      ":1",      "a:",       "a",           "a:b",         "a b:1",     "a/b:1",    "a:b:1",
      "[::1]:1", "[]:1",     "[:1",         "::1:1",       "0.0.0.0:0", "a:-1",     "a=1",
      "a=10000", "a=10001",  "a=0",         "a=007",       "a=1,b=2",   "a=1,",     ",a=1",
      "other=1", "others=1", "a=1,other=1", "a-b.c_d:e=1", "a b=1",     "a==1",     "1MiB",
      "1024KiB", "01MiB",    "1048576",     "1 MiB",       "1MB",       "1.5MiB",   "MiB",
      "-1",      "+1",       "1mib"};
  int patterns = 0;
  for (const Option& option : Options()) {
    const json node = At(schema, std::string(option.key));
    if (!node.contains("pattern")) continue;
    ++patterns;
    const std::regex pattern(node["pattern"].get<std::string>());
    for (const char* text : texts) {
      Config config;
      const absl::Status status =
          Assign(config, {std::string(option.key), YamlEntry::Kind::kQuoted, text, 1});
      EXPECT_EQ(std::regex_search(text, pattern), status.ok()) << option.key << ": " << text;
    }
  }
  EXPECT_GE(patterns, 6);
}

TEST(SchemaTest, ADescriptionIsTheCommentOfTheReference) {
  const json schema = Schema();
  for (const Option& option : Options()) {
    EXPECT_TRUE(At(schema, std::string(option.key)).contains("description")) << option.key;
  }
  EXPECT_EQ(At(schema, "engine.max_running")["description"],
            "Sequences computed in one batch. More give more tokens per second in all, and each "
            "fewer.\n1 to 4096.");
  const std::string scheme = At(schema, "kv.scheme")["description"];
  EXPECT_NE(scheme.find("\n  exact              16 bit\n"), std::string::npos) << scheme;
  EXPECT_FALSE(At(schema, "model").contains("description"));
  const std::string section = At(schema, "kv.quality")["description"];
  EXPECT_TRUE(section.starts_with("What a tier of a profile may cost.")) << section;
}

TEST(ReferenceTest, TheBinaryHasTheFileOfThisTree) {
  std::ostringstream text;
  text << std::ifstream(ASYMSERVE_SOURCE_DIR "/config/asymserve.yaml").rdbuf();
  EXPECT_EQ(ReferenceText(), text.str());
}

}  // namespace
}  // namespace asymserve
