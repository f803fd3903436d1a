#include "engine/runtime/generation.h"

#include <utility>

#include "engine/model/device_draw.h"

namespace asymserve {
namespace {

OutputTextOptions TextOptions(const GenerateRequest& request) {
  OutputTextOptions options;
  options.stop_strings = request.stop.strings;
  options.include_stop = request.stop.include_stop_string;
  options.skip_special = request.skip_special_tokens;
  options.min_tokens = request.stop.min_tokens;
  options.continues_text = true;  // the prompt
  return options;
}

}  // namespace

Generation::Generation(SequenceId sequence_id, std::shared_ptr<const ActiveRequest> owner,
                       int32_t i, const Tokenizer& tokenizer)
    : id(sequence_id),
      request(std::move(owner)),
      index(i),
      sampling(request->request.sampling),
      draws_on_device(DrawsOnDevice(sampling, request->request.logprobs)),
      text(tokenizer, TextOptions(request->request)) {
  sampling.seed += static_cast<uint64_t>(i);
}

void Generation::Begin() {
  const std::vector<int32_t>& prompt = request->request.prompt;
  tokens.reserve(prompt.size() + static_cast<size_t>(request->max_new_tokens));
  tokens.assign(prompt.begin(), prompt.end());
  history.seen = request->seen;
}

}  // namespace asymserve
