#pragma once

namespace asymserve {

/// Files are read through mappings; when one is cut short or its disk fails meanwhile, the kernel
/// sends SIGBUS. From now on that ends the process with exit status `status` and a line on stderr
/// that says so.
void ExplainBusErrors(int status);

}  // namespace asymserve
