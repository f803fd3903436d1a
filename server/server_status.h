#pragma once

#include "asymserve/v1/admin.pb.h"

#include "server/served_model.h"
#include "server/server_metrics.h"

namespace asymserve {

/// What GetStatus says of the server, but for its uptime and log level. `model`: null while it
/// loads and once it has stopped.
void FillServerStatus(const ServerMetrics& metrics, const ServedModel* model,
                      v1::GetStatusResponse& response);

}  // namespace asymserve
