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

std::array<int64_t, 3> AttentionRunner::ScratchBytes(int64_t max_tokens, int threads) {
  return {(max_tokens + 1) * static_cast<int64_t>(sizeof(int32_t)), kPartialStateBytes,
          kScratch * threads};
}

absl::Status AttentionRunner::Reserve(int64_t max_tokens) {
  const std::array<int64_t, 3> bytes = ScratchBytes(max_tokens, pool_.threads());
  AlignedBuffer* const buffers[] = {&tile_offset_, &partial_states_, &scratch_};
  for (AlignedBuffer* buffer : buffers) *buffer = AlignedBuffer();
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(
        *buffers[i], AlignedBuffer::Allocate(memory_.region(MemoryClass::kWorkspace), bytes[i]));
  }
  max_tokens_ = max_tokens;
  return absl::OkStatus();
}

AttentionScratch AttentionRunner::ThreadScratch(int thread, int32_t first_row) const {
  std::byte* place = scratch_.data() + thread * kScratch;
  const auto take = [&](int64_t bytes) {
    std::byte* taken = place + bytes / kAttentionRows * first_row;
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

void AttentionRunner::PlanTiles(const Request& request) {
  auto* offset = tile_offset_.As<int32_t>();
  offset[0] = 0;
  const std::span<const int32_t> tokens = request.step.token_offset;
  for (size_t s = 0; s + 1 < tokens.size(); ++s) {
    const int32_t rows = (tokens[s + 1] - tokens[s]) * request.group();
    offset[s + 1] = offset[s] + CeilDivide(rows, kAttentionRows);
  }
}

AttentionRunner::Deal AttentionRunner::DealOut(const Request& request, int32_t rows, int32_t groups,
                                               int32_t chunks) const {
  const int32_t tiles = tile_offset_.As<const int32_t>()[request.step.token_offset.size() - 1];
  const int32_t kv_heads = request.shape.kv_heads;
  const int32_t fit = std::clamp(kAttentionRows / rows, 1, kv_heads);
  const int32_t spare = static_cast<int32_t>(int64_t{tiles} * kv_heads * groups / chunks);
  const int32_t heads = std::clamp(spare, 1, fit);
  return {tiles, heads, CeilDivide(kv_heads, heads)};
}

AttentionTile AttentionRunner::MakeTile(const Request& request, int32_t sequence, int32_t first_row,
                                        int32_t kv_head, const AttentionScratch& scratch) const {
  const KvStep& step = request.step;
  const auto s = static_cast<size_t>(sequence);
  const int32_t first_token = step.token_offset[s];
  const int32_t tokens = step.token_offset[s + 1] - first_token;
  AttentionTile tile = {};
  tile.key = &arena_.tables().head(request.layer, KvTensor::kKey, kv_head);
  tile.value = &arena_.tables().head(request.layer, KvTensor::kValue, kv_head);
  const bool exact = step.pages[static_cast<size_t>(step.page_offset[s])].exact;
  tile.int8_keys =
      !exact && (tile.key->near == KvCodec::kInt8 || tile.key->item.codec == KvCodec::kInt8);
  tile.rotated = !exact && arena_.rotates_values() && tile.value->rotates_values();
  tile.state_floats =
      kStateValue + int64_t{tile.rotated ? 2 : 1} * CeilDivide(request.shape.head_size, 16) * 16;
  tile.positions = step.positions.data() + first_token;
  tile.head_size = request.shape.head_size;
  tile.group = request.group();
  tile.first_row = first_row;
  tile.rows = std::min(kAttentionRows, tokens * tile.group - tile.first_row);
  const int64_t head = int64_t{kv_head} * tile.group * tile.head_size;
  tile.q = request.qkv.Row<const float>(first_token) + head;
  tile.q_stride = request.qkv.row_elements();
  tile.out = request.out.Row<float>(first_token) + head;
  tile.out_stride = request.out.row_elements();
  tile.frame_pages = arena_.scheme().frame_tokens / kPageTokens;
  tile.rope = static_cast<const float*>(arena_.rope().data);
  tile.interleaved = arena_.interleaved();
  tile.scratch = scratch;
  return tile;
}

AttentionRunner::Task AttentionRunner::MakeTask(const Request& request, const Deal& deal,
                                                int32_t index, int thread) const {
  const int32_t tile_index = index / deal.tasks_per_tile;
  const std::span<const int32_t> offset(tile_offset_.As<const int32_t>(),
                                        request.step.token_offset.size());
  const int32_t sequence = FindRange(offset, tile_index);
  const auto s = static_cast<size_t>(sequence);
  const int32_t first_row = (tile_index - offset[s]) * kAttentionRows;

  Task task;  // NOLINT(cppcoreguidelines-pro-type-member-init): tiles beyond `heads` are not used
  task.pages = request.step.pages.data() + request.step.page_offset[s];
  task.first_head = index % deal.tasks_per_tile * deal.heads_per_task;
  task.heads = std::min(deal.heads_per_task, request.shape.kv_heads - task.first_head);
  int32_t scratch_row = 0;
  for (int32_t h = 0; h < task.heads; ++h) {
    AttentionTile& tile = task.tiles[static_cast<size_t>(h)];
    tile = MakeTile(request, sequence, first_row, task.first_head + h,
                    ThreadScratch(thread, scratch_row));
    scratch_row += tile.rows;
  }
  const AttentionTile& tile = task.tiles.front();
  const auto* first = tile.positions + tile.first_row / tile.group;
  const auto* last = tile.positions + (tile.first_row + tile.rows - 1) / tile.group;
  task.page_count = *std::max_element(first, last + 1) / kPageTokens + 1;
  return task;
}

// ---- Tasks --------------------------------------------------------------------------------------

void AttentionRunner::Scan(const Request& request, const Task& task, int32_t first_page,
                           float* states) const {
  std::array<KvPageBlocks, kGroupPages> blocks;
  const int32_t last_page = std::min(task.page_count, first_page + kGroupPages);
  for (int32_t h = 0; h < task.heads; ++h) {
    for (int32_t page = first_page; page < last_page; ++page) {
      blocks[static_cast<size_t>(page - first_page)] =
          arena_.Blocks(task.pages[page], request.layer, task.first_head + h);
    }
    const AttentionTile& tile = task.tiles[static_cast<size_t>(h)];
    kernels_.attention_scan(tile, blocks.data(), first_page, last_page, states);
    states += tile.rows * tile.state_floats;
  }
}

void AttentionRunner::Merge(const Task& task, int32_t first_page, float* states,
                            const float* later) const {
  for (int32_t h = 0; h < task.heads; ++h) {
    const AttentionTile& tile = task.tiles[static_cast<size_t>(h)];
    kernels_.attention_merge(tile, first_page, states, later);
    states += tile.rows * tile.state_floats;
    later += tile.rows * tile.state_floats;
  }
}

void AttentionRunner::Finish(const Task& task, float* states) const {
  for (int32_t h = 0; h < task.heads; ++h) {
    const AttentionTile& tile = task.tiles[static_cast<size_t>(h)];
    kernels_.attention_finish(tile, states);
    states += tile.rows * tile.state_floats;
  }
}

void AttentionRunner::Load(const Task& task) const {
  for (int32_t h = 0; h < task.heads; ++h) {
    kernels_.attention_load(task.tiles[static_cast<size_t>(h)]);
  }
}

void AttentionRunner::AttendWhole(const Request& request, const Task& task, int thread) const {
  const States states = ThreadStates(thread);
  Load(task);
  for (int32_t page = 0; page < task.page_count; page += kGroupPages) {
    Scan(request, task, page, page == 0 ? states.first : states.later);
    if (page != 0) Merge(task, page, states.first, states.later);
  }
  Finish(task, states.first);
}

bool AttentionRunner::AttendSplit(const Request& request, const Deal& deal, int32_t groups) {
  const int64_t slot_floats =
      kAttentionRows * (kStateValue + int64_t{2} * CeilDivide(request.shape.head_size, 16) * 16);
  if (int64_t{deal.tasks()} * groups * slot_floats * kFloatBytes > partial_states_.bytes()) {
    return false;
  }
  const auto states = [&](int32_t index, int32_t group) {
    return partial_states_.As<float>() + (int64_t{index} * groups + group) * slot_floats;
  };
  pool_.ParallelFor(deal.tasks() * groups, [&](int chunk, int thread) {
    const int32_t index = chunk / groups;
    const int32_t group = chunk % groups;
    const Task task = MakeTask(request, deal, index, thread);
    const int32_t first = group * kGroupPages;
    if (first >= task.page_count) return;
    Load(task);
    Scan(request, task, first, states(index, group));
  });
  for (int32_t index = 0; index < deal.tasks(); ++index) {
    const Task task = MakeTask(request, deal, index, 0);
    for (int32_t page = kGroupPages; page < task.page_count; page += kGroupPages) {
      Merge(task, page, states(index, 0), states(index, page / kGroupPages));
    }
    Finish(task, states(index, 0));
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
  return CheckAttention(shape, out, qkv, arena_.arena_shape());
}

absl::Status AttentionRunner::Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                                     TensorView out, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(Check(step, layer, shape, out, qkv));
  if (qkv.rows() == 0) return absl::OkStatus();
  const Request request = {step, layer, shape, out, qkv};
  PlanTiles(request);
  int64_t seen = 0;
  int32_t farthest = 0;
  for (const int32_t position : step.positions) {
    seen += position + 1;
    farthest = std::max(farthest, position);
  }
  int32_t most_tokens = 0;
  for (size_t s = 0; s + 1 < step.token_offset.size(); ++s) {
    most_tokens = std::max(most_tokens, step.token_offset[s + 1] - step.token_offset[s]);
  }
  const int32_t rows = std::min(kAttentionRows, most_tokens * request.group());
  const int64_t products = 2 * seen * shape.heads * shape.head_size;
  const bool alone = pool_.threads() == 1 || products < kMinParallelProducts;
  const int32_t chunks = alone ? 1 : 4 * pool_.threads();
  const Deal deal = DealOut(request, rows, 1, chunks);
  const int32_t groups = CeilDivide(farthest / kPageTokens + 1, kGroupPages);
  if (!alone && deal.tasks() < chunks && groups > 1 &&
      AttendSplit(request, DealOut(request, rows, groups, chunks), groups)) {
    return absl::OkStatus();
  }
  // The longest first: later tokens of a prompt see more pages.
  const auto attend = [&](int task, int thread) {
    AttendWhole(request, MakeTask(request, deal, deal.tasks() - 1 - task, thread), thread);
  };
  if (!alone) {
    pool_.ParallelFor(deal.tasks(), attend);
    return absl::OkStatus();
  }
  for (int32_t task = 0; task < deal.tasks(); ++task) attend(task, 0);
  return absl::OkStatus();
}

}  // namespace asymserve
