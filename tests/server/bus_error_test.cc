#include "server/bus_error.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/base/mapped_file.h"
#include "tests/support/file_io.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

TEST(BusErrorTest, AFileThatIsCutShortWhileItIsReadEndsTheProcessWithAReason) {
  const TempDir directory;
  const std::string path = directory.Path("model.gguf");
  WriteFile(path, std::string(1 << 16, 'x'));
  EXPECT_EXIT(
      {
        ExplainBusErrors(7);
        const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
        if (!file.ok() || truncate(path.c_str(), 0) != 0) _exit(1);
        const volatile std::byte last = file->bytes().back();
        (void)last;
      },
      ::testing::ExitedWithCode(7), "was cut short");
}

}  // namespace
}  // namespace asymserve::testing
