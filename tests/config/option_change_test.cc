#include "config/option_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Texts(const Config& from, const Config& to) {
  std::vector<std::string> texts;
  for (const OptionChange& change : Changes(from, to)) texts.push_back(ToString(change));
  return texts;
}

TEST(OptionChangeTest, NamesWhatDiffersWithBothValuesInTheOrderOfTheTable) {
  Config to;
  EXPECT_THAT(Texts({}, to), IsEmpty());
  to.log.level = "debug";
  to.engine.threads = 4;
  to.engine.memory_bytes = int64_t{3} << 30;
  to.kv.elastic = true;
  to.kv.quality.canary_rate = 0.25;
  to.scheduling.tenants = "gold=4";
  EXPECT_THAT(Texts({}, to),
              ElementsAre("engine.threads: 0 -> 4", "engine.memory_bytes: 0 -> 3GiB",
                          "kv.elastic: false -> true", "kv.quality.canary_rate: 0.001 -> 0.25",
                          "scheduling.tenants: \"\" -> gold=4", "log.level: info -> debug"));
}

TEST(OptionChangeTest, CopyingEachChangeMakesTheConfigurationsEqual) {
  Config from, to;
  for (const Option& option : Options()) {
    std::visit(
        [&](auto member) {
          auto& value = member(to);
          using T = std::remove_cvref_t<decltype(value)>;
          if constexpr (std::is_same_v<T, std::string>) {
            value += "x";
          } else if constexpr (std::is_same_v<T, bool>) {
            value = !value;
          } else {
            value += 1;
          }
        },
        option.member);
  }
  const std::vector<OptionChange> changes = Changes(from, to);
  ASSERT_EQ(changes.size(), Options().size());
  for (const OptionChange& change : changes) CopyValue(*change.option, to, from);
  EXPECT_EQ(from, to);
}

}  // namespace
}  // namespace asymserve
