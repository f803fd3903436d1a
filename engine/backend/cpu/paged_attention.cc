#include "engine/backend/cpu/paged_attention.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/ragged.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

// Groups of pages are merged in order, whoever computes them: so several threads can share one long
// sequence and get the same bits as one.
constexpr int64_t kPartialStateBytes = int64_t{8} << 20;
constexpr int64_t kMinParallelProducts = 100'000;

// Parts of a thread's scratch, in bytes; all are multiples of a cache line.
constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kQueries = int64_t{kAttentionRows} * kMaxHeadSize * kFloatBytes;
constexpr int64_t kIntQueries = int64_t{kAttentionRows} * sizeof(IntQuery);
constexpr int64_t kKeyTables = int64_t{kAttentionRows} * sizeof(KeyTable);
constexpr int64_t kWeights = int64_t{kAttentionRows} * kGroupTokens * kFloatBytes;
constexpr int64_t kFixedWeights = int64_t{kAttentionRows} * 2 * kGroupTokens;
constexpr int64_t kStates =
    kAttentionRows * (int64_t{kStateValue} + 2 * kMaxHeadSize) * kFloatBytes;
constexpr int64_t kScratch =
    kQueries + kIntQueries + kKeyTables + kWeights + kFixedWeights + 2 * kStates;
static_assert(kIntQueries % 64 == 0 && kKeyTables % 64 == 0 && kStates % 64 == 0);

constexpr int32_t CeilDivide(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}

}  // namespace

absl::Status AttentionRunner::Reserve(int64_t max_tokens) {
  ASYMSERVE_ASSIGN_OR_RETURN(
      tile_offset_,
      AlignedBuffer::Allocate((max_tokens + 1) * static_cast<int64_t>(sizeof(int32_t))));
  ASYMSERVE_ASSIGN_OR_RETURN(partial_states_, AlignedBuffer::Allocate(kPartialStateBytes));
  ASYMSERVE_ASSIGN_OR_RETURN(scratch_, AlignedBuffer::Allocate(kScratch * pool_.threads()));
  max_tokens_ = max_tokens;
  return absl::OkStatus();
}

AttentionScratch AttentionRunner::ThreadScratch(int thread) const {
  std::byte* place = scratch_.data() + thread * kScratch;
  const auto take = [&place](int64_t bytes) {
    std::byte* taken = place;
    place += bytes;
    return taken;
  };
  AttentionScratch scratch = {};
  scratch.queries = reinterpret_cast<float*>(take(kQueries));
  scratch.int_queries = reinterpret_cast<IntQuery*>(take(kIntQueries));
  scratch.key_tables = reinterpret_cast<KeyTable*>(take(kKeyTables));
  scratch.weights = reinterpret_cast<float*>(take(kWeights));
  scratch.fixed_weights = reinterpret_cast<uint8_t*>(take(kFixedWeights));
  return scratch;
}

AttentionRunner::States AttentionRunner::ThreadStates(int thread) const {
  std::byte* end = scratch_.data() + (thread + 1) * kScratch;
  return {reinterpret_cast<float*>(end - 2 * kStates), reinterpret_cast<float*>(end - kStates)};
}

int32_t AttentionRunner::PlanTiles(const Request& request) {
  auto* offset = tile_offset_.As<int32_t>();
  offset[0] = 0;
  const std::span<const int32_t> tokens = request.step.token_offset;
  for (size_t s = 0; s + 1 < tokens.size(); ++s) {
    const int32_t rows = (tokens[s + 1] - tokens[s]) * request.group();
    offset[s + 1] = offset[s] + CeilDivide(rows, kAttentionRows);
  }
  return offset[tokens.size() - 1];
}

AttentionRunner::Task AttentionRunner::MakeTask(const Request& request, int32_t index,
                                                int thread) const {
  const KvStep& step = request.step;
  const int32_t kv_head = index % request.shape.kv_heads;
  const int32_t tile_index = index / request.shape.kv_heads;
  const std::span<const int32_t> offset(tile_offset_.As<const int32_t>(), step.token_offset.size());
  const auto s = static_cast<size_t>(FindRange(offset, tile_index));
  const int32_t first_token = step.token_offset[s];
  const int32_t tokens = step.token_offset[s + 1] - first_token;

  Task task = {};
  task.pages = step.pages.data() + step.page_offset[s];
  task.kv_head = kv_head;
  AttentionTile& tile = task.tile;
  tile.key = &arena_.tables().head(request.layer, KvTensor::kKey, kv_head);
  tile.value = &arena_.tables().head(request.layer, KvTensor::kValue, kv_head);
  const bool exact = task.pages->exact;
  tile.int8_keys =
      !exact && (tile.key->near == KvCodec::kInt8 || tile.key->item.codec == KvCodec::kInt8);
  tile.rotated = !exact && arena_.rotates_values() && tile.value->rotates_values();
  tile.state_floats =
      kStateValue + int64_t{tile.rotated ? 2 : 1} * CeilDivide(request.shape.head_size, 16) * 16;
  tile.positions = step.positions.data() + first_token;
  tile.head_size = request.shape.head_size;
  tile.group = request.group();
  tile.first_row = (tile_index - offset[s]) * kAttentionRows;
  tile.rows = std::min(kAttentionRows, tokens * tile.group - tile.first_row);
  const int64_t head = int64_t{kv_head} * tile.group * tile.head_size;
  tile.q = request.qkv.Row<const float>(first_token) + head;
  tile.q_stride = request.qkv.row_elements();
  tile.out = request.out.Row<float>(first_token) + head;
  tile.out_stride = request.out.row_elements();
  tile.frame_pages = arena_.scheme().frame_tokens / kPageTokens;
  tile.rope = static_cast<const float*>(arena_.rope().data);
  tile.interleaved = arena_.interleaved();
  tile.scratch = ThreadScratch(thread);

  const auto* first = tile.positions + tile.first_row / tile.group;
  const auto* last = tile.positions + (tile.first_row + tile.rows - 1) / tile.group;
  task.page_count = *std::max_element(first, last + 1) / kPageTokens + 1;
  return task;
}

void AttentionRunner::Scan(const Request& request, const Task& task, int32_t first_page,
                           float* states) const {
  std::array<KvPageBlocks, kGroupPages> blocks;
  const int32_t last_page = std::min(task.page_count, first_page + kGroupPages);
  for (int32_t page = first_page; page < last_page; ++page) {
    blocks[static_cast<size_t>(page - first_page)] =
        arena_.Blocks(task.pages[page], request.layer, task.kv_head);
  }
  kernels_.attention_scan(task.tile, blocks.data(), first_page, last_page, states);
}

void AttentionRunner::AttendWhole(const Request& request, const Task& task, int thread) const {
  const States states = ThreadStates(thread);
  kernels_.attention_load(task.tile);
  for (int32_t page = 0; page < task.page_count; page += kGroupPages) {
    Scan(request, task, page, page == 0 ? states.first : states.later);
    if (page != 0) kernels_.attention_merge(task.tile, page, states.first, states.later);
  }
  kernels_.attention_finish(task.tile, states.first);
}

bool AttentionRunner::AttendSplit(const Request& request, int32_t tasks, int32_t max_pages) {
  const int32_t groups = CeilDivide(max_pages, kGroupPages);
  const int64_t slot_floats =
      kAttentionRows * (kStateValue + int64_t{2} * CeilDivide(request.shape.head_size, 16) * 16);
  if (int64_t{tasks} * groups * slot_floats * static_cast<int64_t>(sizeof(float)) >
      partial_states_.bytes()) {
    return false;
  }
  const auto states = [&](int32_t index, int32_t group) {
    return partial_states_.As<float>() + (int64_t{index} * groups + group) * slot_floats;
  };
  pool_.ParallelFor(tasks * groups, [&](int chunk, int thread) {
    const int32_t index = chunk / groups;
    const int32_t group = chunk % groups;
    const Task task = MakeTask(request, index, thread);
    const int32_t first = group * kGroupPages;
    if (first >= task.page_count) return;
    kernels_.attention_load(task.tile);
    Scan(request, task, first, states(index, group));
  });
  for (int32_t index = 0; index < tasks; ++index) {
    const Task task = MakeTask(request, index, 0);
    for (int32_t page = kGroupPages; page < task.page_count; page += kGroupPages) {
      kernels_.attention_merge(task.tile, page, states(index, 0),
                               states(index, page / kGroupPages));
    }
    kernels_.attention_finish(task.tile, states(index, 0));
  }
  return true;
}

absl::Status AttentionRunner::Check(const KvStep& step, int32_t layer, const AttentionShape& shape,
                                    TensorView out, TensorView qkv) const {
  ASYMSERVE_RETURN_IF_ERROR(arena_.CheckStep(step, layer, qkv.rows()));
  const auto sequences = static_cast<int64_t>(step.token_offset.size()) - 1;
  if (qkv.rows() > max_tokens_ || sequences > max_tokens_) {
    return absl::InternalError(absl::StrCat("step of ", qkv.rows(), " tokens, ", sequences,
                                            " sequences; reserved for ", max_tokens_));
  }
  const KvShape& held = arena_.shape();
  const int64_t size = shape.head_size;
  if (shape.kv_heads != held.kv_heads || shape.head_size != held.head_size ||
      shape.heads < shape.kv_heads || shape.heads % shape.kv_heads != 0 ||
      qkv.row_elements() != (shape.heads + int64_t{2} * shape.kv_heads) * size ||
      out.rows() != qkv.rows() || out.row_elements() != shape.heads * size) {
    return absl::InternalError(absl::StrCat(
        "Attention: ", shape.heads, " heads, ", shape.kv_heads, " KV heads of ", size, ", q k v [",
        qkv.rows(), ", ", qkv.row_elements(), "], out [", out.rows(), ", ", out.row_elements(),
        "]; the arena has ", held.kv_heads, " KV heads of ", held.head_size));
  }
  return absl::OkStatus();
}

absl::Status AttentionRunner::Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                                     TensorView out, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(Check(step, layer, shape, out, qkv));
  if (qkv.rows() == 0) return absl::OkStatus();
  const Request request = {step, layer, shape, out, qkv};
  const int32_t tasks = PlanTiles(request) * shape.kv_heads;
  int64_t seen = 0;
  int32_t farthest = 0;
  for (const int32_t position : step.positions) {
    seen += position + 1;
    farthest = std::max(farthest, position);
  }
  const int32_t max_pages = farthest / kPageTokens + 1;
  const int64_t products = 2 * seen * shape.heads * shape.head_size;
  if (pool_.threads() == 1 || products < kMinParallelProducts) {
    for (int32_t task = 0; task < tasks; ++task)
      AttendWhole(request, MakeTask(request, task, 0), 0);
    return absl::OkStatus();
  }
  if (tasks < 4 * pool_.threads() && max_pages > kGroupPages &&
      AttendSplit(request, tasks, max_pages)) {
    return absl::OkStatus();
  }
  pool_.ParallelFor(tasks, [&](int task, int thread) {
    AttendWhole(request, MakeTask(request, task, thread), thread);
  });
  return absl::OkStatus();
}

}  // namespace asymserve
