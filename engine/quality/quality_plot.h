#pragma once

#include <string>

#include "engine/quality/quality_json.h"

namespace asymserve {

/// A picture (SVG) of what schemes cost over bits per element of 4,096 tokens, everything that is
/// stored included, both axes logarithmic: mean KL and, where there was a copy test, the negative
/// log-likelihood of its second reading, with that of exact dashed. A mark per scheme and text, a
/// name per scheme; a KL of 0 lies on the lower edge. Texts of the copy test show their KL only
/// where no other text does.
std::string QualityPlot(const QualityResult& result);

}  // namespace asymserve
