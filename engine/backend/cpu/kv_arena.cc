#include "engine/backend/cpu/kv_arena.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

// A softmax is computed per group of this many pages and the groups merged in order, whoever
// computes them: so several threads can share one long sequence and get the same bits as one.
constexpr int32_t kGroupPages = 4;
constexpr int64_t kPartialStateBytes = int64_t{8} << 20;
constexpr int64_t kMinParallelProducts = 100'000;
constexpr int64_t kWriteTokens = 32;  // per chunk

constexpr int64_t kMaxStateFloats = kStateValue + kMaxHeadSize;
constexpr int64_t kQueriesFloats = int64_t{kAttentionRows} * kMaxHeadSize;
constexpr int64_t kWeightsFloats = int64_t{kAttentionRows} * kPageTokens;
constexpr int64_t kStatesFloats = kAttentionRows * kMaxStateFloats;
constexpr int64_t kScratchFloats = kQueriesFloats + kWeightsFloats + 2 * kStatesFloats;

constexpr int32_t CeilDivide(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}

int64_t StateFloats(int32_t head_size) {
  return kStateValue + CeilDivide(head_size, 16) * 16;
}

/// The sequence that holds token `token` of the step.
int32_t FindSequence(std::span<const int32_t> token_offset, int64_t token) {
  const auto after = std::upper_bound(token_offset.begin(), token_offset.end(), token);
  return static_cast<int32_t>(after - token_offset.begin()) - 1;
}

bool IsPartition(std::span<const int32_t> offset, int64_t total) {
  return !offset.empty() && offset.front() == 0 && offset.back() == total &&
         std::is_sorted(offset.begin(), offset.end());
}

}  // namespace

absl::Status KvArena::Init(const KvShape& shape, const KvScheme& scheme, int32_t pages) {
  if (pages_ != 0) return absl::InternalError("KvInit called twice");
  if (scheme.page_tokens != kPageTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cpu: KV pages of ", scheme.page_tokens, " tokens; only ", kPageTokens, " are supported"));
  }
  if (shape.head_size < 8 || shape.head_size > kMaxHeadSize || shape.head_size % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cpu: head size ", shape.head_size, "; must be a multiple of 8 up to ", kMaxHeadSize));
  }
  if (shape.layers < 1 || shape.kv_heads < 1 || pages < 1) {
    return absl::InvalidArgumentError(absl::StrCat("cpu: KV cache of ", shape.layers, " layers, ",
                                                   shape.kv_heads, " heads, ", pages, " pages"));
  }
  constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max() / 2;
  const int64_t block_bytes = int64_t{2} * shape.head_size * kPageTokens;
  if (int64_t{shape.layers} * shape.kv_heads > kMaxBytes / (2 * block_bytes) / pages) {
    return absl::ResourceExhaustedError(absl::StrCat("KV arena of ", pages, " pages is too large"));
  }
  const int64_t bytes = ExactPageLayout(shape, scheme).record_bytes() * pages;
  absl::StatusOr<AlignedBuffer> arena = AlignedBuffer::Allocate(bytes);
  if (!arena.ok()) {
    return Annotate(arena.status(), absl::StrCat("KV arena of ", pages, " pages"));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(partial_states_, AlignedBuffer::Allocate(kPartialStateBytes));
  ASYMSERVE_ASSIGN_OR_RETURN(scratch_,
                             AlignedBuffer::Allocate(kScratchFloats * pool_.threads() *
                                                     static_cast<int64_t>(sizeof(float))));
  arena_ = *std::move(arena);
  shape_ = shape;
  scheme_ = scheme;
  pages_ = pages;
  return absl::OkStatus();
}

absl::Status KvArena::Reserve(int64_t max_tokens) {
  ASYMSERVE_ASSIGN_OR_RETURN(
      tile_offset_,
      AlignedBuffer::Allocate((max_tokens + 1) * static_cast<int64_t>(sizeof(int32_t))));
  max_tokens_ = max_tokens;
  return absl::OkStatus();
}

absl::Status KvArena::CheckStep(const KvStep& step, int32_t layer, TensorView qkv) const {
  if (pages_ == 0) return absl::InternalError("KvInit was not called");
  const int64_t tokens = qkv.rows();
  if (layer < 0 || layer >= shape_.layers) {
    return absl::InternalError(absl::StrCat("layer ", layer, " of ", shape_.layers));
  }
  const auto sequences = static_cast<int64_t>(step.token_offset.size()) - 1;
  if (tokens > max_tokens_ || sequences > max_tokens_) {
    return absl::InternalError(absl::StrCat("step of ", tokens, " tokens, ", sequences,
                                            " sequences; reserved for ", max_tokens_));
  }
  if (static_cast<int64_t>(step.positions.size()) != tokens ||
      !IsPartition(step.token_offset, tokens) ||
      step.page_offset.size() != step.token_offset.size() ||
      !IsPartition(step.page_offset, static_cast<int64_t>(step.pages.size()))) {
    return absl::InternalError(absl::StrCat("step of ", tokens, " tokens with ",
                                            step.positions.size(), " positions, ",
                                            step.pages.size(), " pages and inconsistent offsets"));
  }
  for (size_t s = 0; s + 1 < step.token_offset.size(); ++s) {
    const int32_t pages = step.page_offset[s + 1] - step.page_offset[s];
    for (int32_t t = step.token_offset[s]; t < step.token_offset[s + 1]; ++t) {
      const int32_t position = step.positions[static_cast<size_t>(t)];
      if (position < 0 || position / kPageTokens >= pages) {
        return absl::InternalError(
            absl::StrCat("position ", position, " of sequence ", s, " with ", pages, " pages"));
      }
    }
  }
  for (const PageId page : step.pages) {
    if (Index(page) < 0 || Index(page) >= pages_) {
      return absl::InternalError(absl::StrCat("page ", Index(page), " of ", pages_));
    }
  }
  return absl::OkStatus();
}

// ---- Write ------------------------------------------------------------------------------------

void KvArena::WriteToken(const KvStep& step, int32_t layer, int32_t sequence, int64_t token,
                         const float* keys, uint16_t* half) const {
  const ExactPageLayout layout(shape_, scheme_);
  const auto s = static_cast<size_t>(sequence);
  const int32_t position = step.positions[static_cast<size_t>(token)];
  const int32_t slot = position % kPageTokens;
  const PageId page = step.pages[static_cast<size_t>(step.page_offset[s] + position / kPageTokens)];
  uint16_t* record = arena_.As<uint16_t>() + Index(page) * layout.record_elements();
  const int32_t size = shape_.head_size;
  const float* values = keys + int64_t{shape_.kv_heads} * size;
  for (int32_t head = 0; head < shape_.kv_heads; ++head) {
    kernels_.to_half(half, keys + int64_t{head} * size, size);
    uint16_t* column = record + layout.Key(layer, head, 0, slot);
    for (int32_t d = 0; d < size; ++d) column[d * kPageTokens] = half[d];
    kernels_.to_half(record + layout.Value(layer, head, slot, 0), values + int64_t{head} * size,
                     size);
  }
}

absl::Status KvArena::Write(const KvStep& step, int32_t layer, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(CheckStep(step, layer, qkv));
  const int64_t kv_elements = int64_t{2} * shape_.kv_heads * shape_.head_size;
  if (qkv.row_elements() < kv_elements) {
    return absl::InternalError(absl::StrCat("KvWrite: rows of ", qkv.row_elements(),
                                            " elements, keys and values are ", kv_elements));
  }
  const int64_t tokens = qkv.rows();
  const int64_t keys = qkv.row_elements() - kv_elements;
  const int64_t chunks = (tokens + kWriteTokens - 1) / kWriteTokens;
  pool_.ParallelFor(static_cast<int>(chunks), [&](int chunk, int thread) {
    auto* half = reinterpret_cast<uint16_t*>(ThreadScratch(thread).queries);
    const int64_t last = std::min(tokens, (chunk + 1) * kWriteTokens);
    for (int64_t token = chunk * kWriteTokens; token < last; ++token) {
      const int32_t sequence = FindSequence(step.token_offset, token);
      WriteToken(step, layer, sequence, token, qkv.Row<float>(token) + keys, half);
    }
  });
  return absl::OkStatus();
}

// ---- Attention --------------------------------------------------------------------------------

KvArena::Scratch KvArena::ThreadScratch(int thread) const {
  float* base = scratch_.As<float>() + thread * kScratchFloats;
  float* states = base + kQueriesFloats + kWeightsFloats;
  return {base, base + kQueriesFloats, states, states + kStatesFloats};
}

int32_t KvArena::PlanTiles(const Request& request) {
  auto* offset = tile_offset_.As<int32_t>();
  offset[0] = 0;
  const std::span<const int32_t> tokens = request.step.token_offset;
  for (size_t s = 0; s + 1 < tokens.size(); ++s) {
    const int32_t rows = (tokens[s + 1] - tokens[s]) * request.group();
    offset[s + 1] = offset[s] + CeilDivide(rows, kAttentionRows);
  }
  return offset[tokens.size() - 1];
}

KvArena::Task KvArena::MakeTask(const Request& request, int32_t index, int thread) const {
  const KvStep& step = request.step;
  const int32_t kv_head = index % shape_.kv_heads;
  const int32_t tile_index = index / shape_.kv_heads;
  const std::span<const int32_t> offset(tile_offset_.As<const int32_t>(), step.token_offset.size());
  const auto s = static_cast<size_t>(FindSequence(offset, tile_index));
  const int32_t first_token = step.token_offset[s];
  const int32_t tokens = step.token_offset[s + 1] - first_token;
  const ExactPageLayout layout(shape_, scheme_);
  const Scratch scratch = ThreadScratch(thread);

  Task task = {};
  AttentionTile& tile = task.tile;
  tile.arena = arena_.As<const uint16_t>();
  tile.record_elements = layout.record_elements();
  tile.key_offset = layout.KeyOffset(request.layer, kv_head);
  tile.value_offset = layout.ValueOffset(request.layer, kv_head);
  tile.pages = step.pages.data() + step.page_offset[s];
  tile.positions = step.positions.data() + first_token;
  tile.head_size = shape_.head_size;
  tile.group = request.group();
  tile.first_row = (tile_index - offset[s]) * kAttentionRows;
  tile.rows = std::min(kAttentionRows, tokens * tile.group - tile.first_row);
  const int64_t head = int64_t{kv_head} * tile.group * tile.head_size;
  tile.q = request.qkv.Row<const float>(first_token) + head;
  tile.q_stride = request.qkv.row_elements();
  tile.out = request.out.Row<float>(first_token) + head;
  tile.out_stride = request.out.row_elements();
  tile.queries = scratch.queries;
  tile.weights = scratch.weights;

  const auto* first = tile.positions + tile.first_row / tile.group;
  const auto* last = tile.positions + (tile.first_row + tile.rows - 1) / tile.group;
  task.pages = *std::max_element(first, last + 1) / kPageTokens + 1;
  return task;
}

void KvArena::AttendWhole(const Task& task, int thread) const {
  const Scratch scratch = ThreadScratch(thread);
  kernels_.attention_load(task.tile);
  for (int32_t page = 0; page < task.pages; page += kGroupPages) {
    const int32_t last = std::min(task.pages, page + kGroupPages);
    kernels_.attention_scan(task.tile, page, last, page == 0 ? scratch.states : scratch.later);
    if (page != 0) kernels_.attention_merge(task.tile, page, scratch.states, scratch.later);
  }
  kernels_.attention_finish(task.tile, scratch.states);
}

bool KvArena::AttendSplit(const Request& request, int32_t tasks, int32_t max_pages) {
  const int32_t groups = CeilDivide(max_pages, kGroupPages);
  const int64_t slot_floats = kAttentionRows * StateFloats(shape_.head_size);
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
    if (first >= task.pages) return;
    kernels_.attention_load(task.tile);
    kernels_.attention_scan(task.tile, first, std::min(task.pages, first + kGroupPages),
                            states(index, group));
  });
  for (int32_t index = 0; index < tasks; ++index) {
    const Task task = MakeTask(request, index, 0);
    for (int32_t page = kGroupPages; page < task.pages; page += kGroupPages) {
      kernels_.attention_merge(task.tile, page, states(index, 0),
                               states(index, page / kGroupPages));
    }
    kernels_.attention_finish(task.tile, states(index, 0));
  }
  return true;
}

absl::Status KvArena::Attend(const KvStep& step, int32_t layer, const AttentionShape& shape,
                             TensorView out, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(CheckStep(step, layer, qkv));
  const int64_t size = shape.head_size;
  if (shape.kv_heads != shape_.kv_heads || shape.head_size != shape_.head_size ||
      shape.heads < shape.kv_heads || shape.heads % shape.kv_heads != 0 ||
      qkv.row_elements() != (shape.heads + int64_t{2} * shape.kv_heads) * size ||
      out.rows() != qkv.rows() || out.row_elements() != shape.heads * size) {
    return absl::InternalError(absl::StrCat(
        "Attention: ", shape.heads, " heads, ", shape.kv_heads, " KV heads of ", size, ", q k v [",
        qkv.rows(), ", ", qkv.row_elements(), "], out [", out.rows(), ", ", out.row_elements(),
        "]; the arena has ", shape_.kv_heads, " KV heads of ", shape_.head_size));
  }
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
  const int64_t products = 2 * seen * shape.heads * size;
  if (pool_.threads() == 1 || products < kMinParallelProducts) {
    for (int32_t task = 0; task < tasks; ++task) AttendWhole(MakeTask(request, task, 0), 0);
    return absl::OkStatus();
  }
  if (tasks < 4 * pool_.threads() && max_pages > kGroupPages &&
      AttendSplit(request, tasks, max_pages)) {
    return absl::OkStatus();
  }
  pool_.ParallelFor(
      tasks, [&](int task, int thread) { AttendWhole(MakeTask(request, task, thread), thread); });
  return absl::OkStatus();
}

}  // namespace asymserve
