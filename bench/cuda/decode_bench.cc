#include "bench/cuda/decode_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "bench/cuda/bench_scheme.h"
#include "bench/cuda/random_weights.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/runtime_device.h"
#include "engine/kv/layout.h"
#include "engine/kv/page_store.h"
#include "engine/model/llama.h"

namespace asymserve::bench {
namespace {

constexpr int32_t kStepTokens = 512;
constexpr int32_t kMostSequences = 256;
constexpr int32_t kMostContext = 32768;
constexpr int64_t kSpareBytes = int64_t{2} << 30;  // of the device, left alone

struct Size {
  int32_t sequences;
  int32_t context;
};

double SecondsOf(const std::function<absl::Status()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  NeedOk(run());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Steps of a model, called as the engine does, from the plan of pages to the drawn tokens.
class DecodeBench {
 public:
  DecodeBench(Meter& meter, Backend& backend, LlamaModel& model, TensorView qkv,
              const std::string& scheme)
      : meter_(meter),
        backend_(backend),
        model_(model),
        shape_({model.config().layers, model.config().attention.kv_heads,
                model.config().attention.head_size}),
        bench_(scheme, shape_),
        layout_(shape_, bench_.scheme),
        qkv_(qkv) {
    KvSetup setup;
    setup.shape = shape_;
    setup.scheme = bench_.scheme;
    setup.codes = &bench_.codes;
    setup.rope = model.rope();
    setup.rope_style = model.config().rope_style;
    const auto room = backend.Room();
    NeedOk(room.status());
    // What an earlier arena took is given back before this one is allocated.
    static const int64_t free_bytes = (*room)->free_bytes;
    setup.arena_bytes = free_bytes - kSpareBytes;
    NeedOk(backend.KvInit(setup));
    store_ = std::make_unique<PageStore>(bench_.scheme, ArenaCut(layout_, setup.arena_bytes));
  }

  void Prefill() {
    sequences_.resize(1);
    std::vector<KvPage>& pages = sequences_.front();
    int32_t written = 0;
    for (const int32_t first : {0, 4096 - kStepTokens, kMostContext - kStepTokens}) {
      for (; written < first; written += bench_.scheme.chunk_tokens) {
        if (!Write(pages, written, written + bench_.scheme.chunk_tokens)) return Release();
      }
      if (!Prepare(pages, first + kStepTokens, first / kKvPageTokens)) return Release();
      Prompt(first);
      written = first + kStepTokens;
    }
    Release();
  }
  void Decode(const Size& size) {
    if (!Fill(size.sequences, size.context)) {
      std::fprintf(stderr, "%d x %d %s: does not fit\n", size.sequences, size.context,
                   bench_.scheme.name.c_str());
      Release();
      return;
    }
    Steps(size);
    Release();
  }

 private:
  bool Prepare(std::vector<KvPage>& pages, int32_t tokens, int32_t complete) {
    std::vector<KvSealOp> seals;
    if (!store_->Prepare(pages, tokens, complete, seals)) return false;
    if (!seals.empty()) NeedOk(backend_.KvSeal(seals));
    store_->EndPlan();
    return true;
  }
  /// Tokens [first, end) of one sequence, written in all layers; its pages go through their life.
  bool Write(std::vector<KvPage>& pages, int32_t first, int32_t end) {
    if (!Prepare(pages, end, first / kKvPageTokens)) return false;
    std::vector<int32_t> positions;
    for (int32_t t = first; t < end; ++t) positions.push_back(t);
    const int32_t token_offset[] = {0, end - first};
    const int32_t page_offset[] = {0, static_cast<int32_t>(pages.size())};
    KvStep step = {positions, token_offset, pages, page_offset, ++number_};
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      NeedOk(backend_.KvWrite(step, layer, qkv_.FirstRows(end - first)));
    }
    return true;
  }
  bool Fill(int32_t sequences, int32_t context) {
    sequences_.resize(static_cast<size_t>(sequences));
    for (std::vector<KvPage>& pages : sequences_) {
      for (int32_t first = 0; first < context; first += bench_.scheme.chunk_tokens) {
        if (!Write(pages, first, first + bench_.scheme.chunk_tokens)) return false;
      }
      if (!Prepare(pages, context, (context - 1) / kKvPageTokens)) return false;
    }
    return true;
  }
  void Release() {
    for (std::vector<KvPage>& pages : sequences_) store_->Release(pages);
    sequences_.clear();
    store_->EndPlan();
  }
  /// Of the weights that every step reads: of the embedding only rows.
  double WeightBytes() const {
    const ModelConfig& config = model_.config();
    return static_cast<double>(model_.weight_bytes() -
                               config.vocabulary * RowBytes(DType::kQ4_0, config.width));
  }

  /// That every token of a prompt is multiplied with: not those of the logits.
  double Weights() const {
    const ModelConfig& config = model_.config();
    return WeightBytes() / 18 * 32 - static_cast<double>(config.vocabulary) * config.width;
  }

  /// One token for each sequence.
  void Steps(const Size& size) {
    Tables tables;
    double bytes = WeightBytes();
    for (int32_t s = 0; s < size.sequences; ++s) {
      const std::vector<KvPage>& pages = sequences_[static_cast<size_t>(s)];
      tables.Add(pages, size.context - 1, 1, 100 + 37 * s);
      for (const KvPage& page : pages) bytes += PageBytes(layout_, page);
    }
    Run(absl::StrCat("decode 8B Q4_0 ", size.sequences, " x ", size.context), tables, bytes);
  }
  /// A step of kStepTokens tokens of a prompt.
  void Prompt(int32_t first) {
    Tables tables;
    tables.Add(sequences_.front(), first, kStepTokens, 100);
    tables.draws.resize(1);
    tables.draws[0].row = 0;
    tables.logit_rows.assign(1, kStepTokens - 1);
    Run(absl::StrCat("prefill 8B Q4_0 ", kStepTokens, " at ", first), tables, WeightBytes(),
        2.0 * kStepTokens * Weights());
  }

  struct Tables {
    std::vector<int32_t> tokens, positions, logit_rows;
    std::vector<int32_t> token_offset = {0}, page_offset = {0};
    std::vector<KvPage> pages;
    std::vector<TokenDraw> draws;

    void Add(const std::vector<KvPage>& of, int32_t first, int32_t count, int32_t token) {
      for (int32_t t = 0; t < count; ++t) {
        tokens.push_back(token + 11 * t);
        positions.push_back(first + t);
      }
      const auto end = static_cast<size_t>((first + count - 1) / kKvPageTokens + 1);
      pages.insert(pages.end(), of.begin(), of.begin() + static_cast<int64_t>(end));
      token_offset.push_back(static_cast<int32_t>(tokens.size()));
      page_offset.push_back(static_cast<int32_t>(pages.size()));
      TokenDraw draw;
      draw.row = static_cast<int32_t>(draws.size());
      draws.push_back(draw);
      logit_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
    }
  };

  void Run(const std::string& name, const Tables& tables, double bytes, double operations = 0) {
    std::vector<DrawnToken> drawn(tables.draws.size());
    const auto step = [&] {
      Batch batch;
      batch.tokens = tables.tokens;
      batch.kv = {tables.positions, tables.token_offset, tables.pages, tables.page_offset};
      batch.logit_rows = tables.logit_rows;
      batch.draws.draws = tables.draws;
      batch.drawn = drawn;
      return model_.Forward(batch).status();
    };
    SecondsOf(step);
    std::vector<double> microseconds;
    double total = 0;
    while (microseconds.size() < 5 || (total < 3e5 && microseconds.size() < 200)) {
      microseconds.push_back(SecondsOf(step) * 1e6);
      total += microseconds.back();
    }
    meter_.Note(
        {absl::StrCat(name, " ", bench_.scheme.name), Median(microseconds), bytes, operations});
  }

  Meter& meter_;
  Backend& backend_;
  LlamaModel& model_;
  const KvShape shape_;
  const BenchScheme bench_;
  const KvLayout layout_;
  const TensorView qkv_;  // what is written into the pages
  std::unique_ptr<PageStore> store_;
  std::vector<std::vector<KvPage>> sequences_;
  uint64_t number_ = uint64_t{1} << 60;  // of steps that no model makes
};

}  // namespace

void MeasureModel(Meter& meter) {
  auto device = cuda::OpenRuntimeDevice();
  NeedOk(device.status());
  auto backend = cuda::MakeCudaBackend(*std::move(device));
  NeedOk(backend.status());
  std::unique_ptr<LlamaModel> model;
  const std::unique_ptr<WeightFile> file = RandomLlama3_8B();
  const double seconds = SecondsOf([&] {
    auto loaded = LlamaModel::Load(*file, **backend,
                                   {.max_step_tokens = kStepTokens,
                                    .max_logit_rows = kMostSequences,
                                    .max_positions = kMostContext});
    if (loaded.ok()) model = *std::move(loaded);
    return loaded.status();
  });
  std::fprintf(stderr, "8B Q4_0: %.1f GB loaded in %.1f s\n",
               static_cast<double>(model->weight_bytes()) * 1e-9, seconds);
  const AttentionShape& shape = model->config().attention;
  const int64_t row = int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_size;
  const std::vector<float> values = Random(kStepTokens * row, 5, 1);
  const auto qkv = (*backend)->Upload(values, kStepTokens);
  NeedOk(qkv.status());
  for (const char* scheme : {"exact", "balanced", "dense"}) {
    DecodeBench bench(meter, **backend, *model, *qkv, scheme);
    bench.Prefill();
    for (const Size& size : {Size{1, 1024}, Size{1, 32768}, Size{8, 4096}, Size{32, 4096},
                             Size{96, 4096}, Size{256, 4096}, Size{8, 32768}}) {
      bench.Decode(size);
    }
  }
}

}  // namespace asymserve::bench
