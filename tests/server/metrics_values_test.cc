// What the samples of a scrape are once a real server has answered calls whose effect is known.
// metrics_families_test.cc says which test does so for each family that there is.

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <map>
#include <vector>

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using Samples = std::map<std::string, double>;
using Reader = std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>;

std::string Ended(const char* reason) {
  return std::string("asymserve_sequences_finished_total{reason=\"") + reason + "\"}";
}

std::string Slabs(const char* state) {
  return std::string("asymserve_kv_slabs{state=\"") + state + "\"}";
}

std::string GenAi(const char* metric, const char* operation, const char* error = "") {
  std::string labels = std::string("{gen_ai_operation_name=\"") + operation +
                       "\",gen_ai_provider_name=\"asymserve\",gen_ai_request_model=\"toy\"";
  if (*error != '\0') labels += std::string(",error_type=\"") + error + "\"";
  return std::string("gen_ai_server_") + metric + labels + "}";
}

class MetricsValuesTest : public ProcessFixture {
 protected:
  /// A server of 12 pages, one in a slab, of which a sequence takes 8 at most.
  void StartWithTwelvePages(const std::string& option) {
    Start({"kv.scheme=exact", "engine.context_tokens=512", "engine.kv_memory_bytes=192KiB",
           "engine.max_running=2", option});
  }

  v1::GenerateUnaryResponse Answer(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    const grpc::Status status = stub_->GenerateUnary(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::Final FinalOf(const v1::GenerateRequest& request) {
    const v1::GenerateUnaryResponse response = Answer(request);
    return response.sequences_size() == 0 ? v1::Final() : response.sequences(0).final();
  }

  /// `tokens` tokens; prompts with another `first` have no prefix in common.
  static v1::GenerateRequest LongRequest(int32_t tokens, int32_t first) {
    v1::GenerateRequest request = Request("", 1);
    for (int32_t i = 0; i < tokens; ++i) {
      request.mutable_prompt_token_ids()->add_ids((first + i) % 250);
    }
    return request;
  }

  /// A stream that has begun; it takes seconds if nobody ends it.
  Reader BeginStream(grpc::ClientContext& context) {
    Reader reader = stub_->Generate(&context, Request("stream", 4000));
    v1::GenerateResponse message;
    EXPECT_TRUE(reader->Read(&message));
    return reader;
  }
  static void Cancel(grpc::ClientContext& context, Reader& reader) {
    context.TryCancel();
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  }

  /// Whether the scrape says so, now or soon.
  bool Comes(const std::string& sample, double value) {
    return Eventually([&] {
      const Samples metrics = server_->Metrics();
      const auto found = metrics.find(sample);
      return found != metrics.end() && found->second == value;
    });
  }
};

TEST_F(MetricsValuesTest, ARequestMovesEachMetricByWhatItsAnswerSays) {
  ASSERT_NO_FATAL_FAILURE(Start({"model.name=toy"}));
  Samples before = server_->Metrics();
  const auto begin = std::chrono::steady_clock::now();
  const v1::Final final = FinalOf(Request("once upon a time", 5));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  const Samples after = server_->Metrics();
  const auto moved = [&](const std::string& sample) { return after.at(sample) - before[sample]; };

  const double prompt = final.usage().prompt_tokens();
  EXPECT_GT(prompt, 0);
  const std::pair<std::string, double> counts[] = {
      {"asymserve_requests_total{method=\"GenerateUnary\",code=\"OK\"}", 1},
      {"asymserve_prompt_tokens_total", prompt},
      {"asymserve_generated_tokens_total", 5},
      {"asymserve_cached_tokens_total", 0},
      {"asymserve_recomputed_tokens_total", 0},
      {Ended("length"), 1},
      {"asymserve_tenant_sequences_total{tenant=\"default\"}", 1},
      {"asymserve_tenant_prompt_tokens_total{tenant=\"default\"}", prompt},
      {"asymserve_tenant_generated_tokens_total{tenant=\"default\"}", 5},
      {"asymserve_steps_total", 5},  // the first token comes of the prompt's step
      {"asymserve_step_seconds_count{phase=\"prefill\"}", 1},
      {"asymserve_step_seconds_count{phase=\"decode\"}", 4},
      {"asymserve_queue_seconds_count", 1},
      {"asymserve_time_to_first_token_seconds_count", 1},
      {"asymserve_inter_token_seconds_count", 4},
      {"asymserve_end_to_end_seconds_count", 1},
      {GenAi("request_duration_seconds_count", "text_completion"), 1},
      {GenAi("time_to_first_token_seconds_count", "text_completion"), 1},
      {GenAi("time_per_output_token_seconds_count", "text_completion"), 1},
      {GenAi("request_duration_seconds_count", "chat"), 0},
  };
  for (const auto& [sample, value] : counts) EXPECT_EQ(moved(sample), value) << sample;

  const v1::Timings& timings = final.timings();
  const double decode = timings.total_seconds() - timings.first_token_seconds();
  const std::pair<std::string, double> seconds[] = {
      {"asymserve_queue_seconds_sum", timings.queue_seconds()},
      {"asymserve_time_to_first_token_seconds_sum", timings.first_token_seconds()},
      {"asymserve_inter_token_seconds_sum", decode},
      {"asymserve_end_to_end_seconds_sum", timings.total_seconds()},
      {GenAi("time_to_first_token_seconds_sum", "text_completion"), timings.first_token_seconds()},
      {GenAi("time_per_output_token_seconds_sum", "text_completion"), decode / 4},
  };
  for (const auto& [sample, value] : seconds) EXPECT_NEAR(moved(sample), value, 1e-7) << sample;
  const double duration = moved(GenAi("request_duration_seconds_sum", "text_completion"));
  EXPECT_GT(duration, timings.total_seconds());
  EXPECT_LT(duration, elapsed.count());
  const double steps = moved("asymserve_step_seconds_sum{phase=\"prefill\"}") +
                       moved("asymserve_step_seconds_sum{phase=\"decode\"}");
  EXPECT_GT(steps, 0);
  EXPECT_LT(steps, elapsed.count());
}

TEST_F(MetricsValuesTest, ACallIsOneObservationOfItsOperationWhateverItsSequences) {
  ASSERT_NO_FATAL_FAILURE(Start({"model.name=toy"}));
  v1::ChatRequest chat;
  v1::ChatMessage& message = *chat.add_messages();
  message.set_role("user");
  message.set_content("hello");
  chat.set_n(3);
  chat.mutable_stop()->set_max_tokens(4);
  chat.mutable_stop()->set_ignore_eos(true);
  grpc::ClientContext context;
  const Reader reader = stub_->Chat(&context, chat);
  double first = 1e9, decode = 0;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (!response.has_final()) continue;
    const v1::Timings& timings = response.final().timings();
    first = std::min(first, timings.first_token_seconds());
    decode += timings.total_seconds() - timings.first_token_seconds();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(Unary(Request("", 1)).error_code(), StatusCode::INVALID_ARGUMENT);
  const Samples metrics = server_->Metrics();
  EXPECT_EQ(metrics.at(GenAi("request_duration_seconds_count", "chat")), 1);
  EXPECT_EQ(metrics.at(GenAi("time_to_first_token_seconds_count", "chat")), 1);
  EXPECT_NEAR(metrics.at(GenAi("time_to_first_token_seconds_sum", "chat")), first, 1e-7);
  EXPECT_EQ(metrics.at(GenAi("time_per_output_token_seconds_count", "chat")), 1);
  EXPECT_NEAR(metrics.at(GenAi("time_per_output_token_seconds_sum", "chat")), decode / 9, 1e-7);
  EXPECT_EQ(metrics.at("asymserve_end_to_end_seconds_count"), 3);
  const char* const kind = "text_completion";
  EXPECT_EQ(metrics.at(GenAi("request_duration_seconds_count", kind, "INVALID_ARGUMENT")), 1);
  EXPECT_EQ(metrics.at(GenAi("request_duration_seconds_count", kind)), 0);
  EXPECT_EQ(metrics.at(GenAi("time_to_first_token_seconds_count", kind)), 0);
}

TEST_F(MetricsValuesTest, APromptThatComesAgainIsTakenFromSlabsOfTheCache) {
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=exact"}));
  const auto expect = [&](double prompt, double cached, double of_tenant) {
    const Samples metrics = server_->Metrics();
    EXPECT_EQ(metrics.at("asymserve_prompt_tokens_total"), prompt);
    EXPECT_EQ(metrics.at("asymserve_cached_tokens_total"), cached);
    EXPECT_EQ(metrics.at("asymserve_tenant_prompt_tokens_total{tenant=\"default\"}"), of_tenant);
    EXPECT_EQ(metrics.at(Slabs("used")), 0);
    EXPECT_EQ(metrics.at(Slabs("cached")), 8);  // 512 tokens: the whole chunks
    EXPECT_EQ(metrics.at(Slabs("free")), 4096 - 8);
    EXPECT_EQ(metrics.at("asymserve_prefix_cache_evictions_total"), 0);
  };
  EXPECT_EQ(FinalOf(LongRequest(600, 0)).usage().cached_tokens(), 0);
  expect(600, 0, 600);
  EXPECT_EQ(FinalOf(LongRequest(600, 0)).usage().cached_tokens(), 512);
  expect(688, 512, 1200);
}

TEST_F(MetricsValuesTest, TheCacheCountsWhatItGivesUp) {
  ASSERT_NO_FATAL_FAILURE(StartWithTwelvePages("kv.prefix_cache=true"));
  for (const int32_t first : {0, 100}) FinalOf(LongRequest(300, first));
  Samples metrics = server_->Metrics();
  EXPECT_EQ(metrics.at("vllm:cache_config_info{block_size=\"64\",num_gpu_blocks=\"12\"}"), 1);
  EXPECT_EQ(metrics.at("asymserve_prefix_cache_evictions_total"), 0);
  EXPECT_EQ(metrics.at(Slabs("cached")), 8);
  FinalOf(LongRequest(300, 200));  // takes five pages, four are free
  metrics = server_->Metrics();
  EXPECT_EQ(metrics.at("asymserve_prefix_cache_evictions_total"), 1);
  EXPECT_EQ(metrics.at(Slabs("cached")), 8);
  EXPECT_EQ(metrics.at(Slabs("free")), 4);
}

TEST_F(MetricsValuesTest, BytesOfTheKvCacheAreThoseOfTheRecordsThatASequenceHolds) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=kivi-2"}));
  const auto bytes = [](const Samples& metrics, const char* record, const char* tensor) {
    return metrics.at(std::string("asymserve_kv_used_bytes{record=\"") + record + "\",tensor=\"" +
                      tensor + "\"}");
  };
  EXPECT_EQ(bytes(server_->Metrics(), "near", "key"), 0);
  grpc::ClientContext context;
  v1::GenerateRequest request = LongRequest(2000, 0);
  request.mutable_stop()->set_max_tokens(2000);
  Reader reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  Samples metrics;
  EXPECT_TRUE(Eventually([&] {
    metrics = server_->Metrics();
    return bytes(metrics, "sealed", "value") > 0 && bytes(metrics, "sealed", "key") > 0;
  }));
  // Whole pages of 64 tokens, 4 layers and 2 heads of 32 channels.
  const double page = 64 * 4 * 2 * 32;
  const auto of = [&](const char* what) {
    return metrics.at(std::string("asymserve_kv_bytes_per_element{of=\"") + what + "\"}");
  };
  for (const double pages : {bytes(metrics, "near", "value") / (2 * page),
                             bytes(metrics, "sealed", "key") / (of("sealed_keys") * page),
                             bytes(metrics, "sealed", "value") / (of("sealed_values") * page)}) {
    EXPECT_GE(pages, 1);
    EXPECT_NEAR(pages, std::round(pages), 1e-6);
  }
  EXPECT_EQ(bytes(metrics, "refinement", "key"), 0) << "kivi-2 has none";
  Cancel(context, reader);
  for (const char* record : {"near", "sealed"}) {
    EXPECT_TRUE(Eventually([&] { return bytes(server_->Metrics(), record, "key") == 0; }));
  }
}

TEST_F(MetricsValuesTest, APreemptionIsCountedWithTheTokensThatItCosts) {
  ASSERT_NO_FATAL_FAILURE(StartWithTwelvePages("kv.prefix_cache=false"));
  v1::GenerateRequest request = Request("once upon a time", 450);
  request.set_n(2);
  const v1::GenerateUnaryResponse response = Answer(request);
  ASSERT_EQ(response.sequences_size(), 2);
  const double prompt = response.sequences(0).final().usage().prompt_tokens();
  const Samples metrics = server_->Metrics();
  const double preemptions = metrics.at("asymserve_preemptions_total");
  EXPECT_GE(preemptions, 1);
  EXPECT_GE(metrics.at("asymserve_admission_blocked_steps_total"), preemptions);
  EXPECT_GE(metrics.at("asymserve_recomputed_tokens_total"), 64 * preemptions);
  EXPECT_LE(metrics.at("asymserve_recomputed_tokens_total"), (prompt + 450) * preemptions);
  // Nothing else is counted twice.
  EXPECT_EQ(metrics.at("asymserve_prompt_tokens_total"), 2 * prompt);
  EXPECT_EQ(metrics.at("asymserve_generated_tokens_total"), 900);
  EXPECT_EQ(metrics.at("asymserve_queue_seconds_count"), 2);
  EXPECT_EQ(metrics.at("asymserve_time_to_first_token_seconds_count"), 2);
}

TEST_F(MetricsValuesTest, WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(
      Start({"model.name=toy", "kv.scheme=exact", "engine.max_running=1", "engine.max_waiting=2"}));
  const std::string running = "vllm:num_requests_running{model_name=\"toy\"}";
  const std::string waiting = "vllm:num_requests_waiting{model_name=\"toy\"}";
  const std::string usage = "vllm:kv_cache_usage_perc{model_name=\"toy\"}";
  std::array<grpc::ClientContext, 3> contexts;
  std::vector<Reader> readers;
  readers.push_back(BeginStream(contexts[0]));
  for (size_t i = 1; i < contexts.size(); ++i) {
    readers.push_back(stub_->Generate(&contexts[i], Request("waits", 4000)));
  }
  ASSERT_TRUE(Comes(waiting, 2));
  EXPECT_EQ(Unary(Request("too many", 1)).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Comes("asymserve_open_calls", 3));
  Samples metrics = server_->Metrics();
  EXPECT_EQ(metrics.at(running), 1);
  EXPECT_EQ(metrics.at(waiting), 2);
  EXPECT_EQ(metrics.at("asymserve_sequences_running"), 1);
  EXPECT_EQ(metrics.at("asymserve_sequences_waiting"), 2);
  EXPECT_EQ(metrics.at("asymserve_tenant_sequences_waiting{tenant=\"default\"}"), 2);
  EXPECT_EQ(metrics.at("asymserve_rejections_total{reason=\"queue_full\"}"), 1);
  EXPECT_EQ(metrics.at("asymserve_refusal_seconds_count"), 1);
  EXPECT_LT(metrics.at("asymserve_refusal_seconds_sum"), 1);
  EXPECT_TRUE(Eventually([&] {  // not while a page is added
    metrics = server_->Metrics();
    const double used = metrics.at(Slabs("used"));
    const double share = used / (used + metrics.at(Slabs("free")));
    return used > 0 && metrics.at("asymserve_kv_pages{state=\"used\"}") == used &&
           std::abs(metrics.at(usage) - share) < 1e-9;
  })) << "a page is a slab";
  Cancel(contexts[2], readers[2]);
  Cancel(contexts[1], readers[1]);
  EXPECT_TRUE(Comes(waiting, 0));
  Cancel(contexts[0], readers[0]);
  for (const std::string& sample :
       {running, usage, Slabs("used"), std::string("asymserve_open_calls")}) {
    EXPECT_TRUE(Comes(sample, 0)) << sample;
  }
  metrics = server_->Metrics();
  EXPECT_EQ(metrics.at(Ended("cancelled")), 3);
  EXPECT_EQ(metrics.at("asymserve_queue_seconds_count"), 3) << "who never ran has waited, too";
  EXPECT_EQ(metrics.at("asymserve_admission_blocked_steps_total"), 0) << "not memory kept them";
}

TEST_F(MetricsValuesTest, EverySequenceCountsByWhyItEnded) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"engine.max_running=1"}));
  v1::GetModelInfoResponse info;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  }
  const auto with_token = [](int32_t id) {
    v1::GenerateRequest request = Request("x", 3);
    request.mutable_stop()->set_ignore_eos(false);
    (*request.mutable_sampling()->mutable_logit_bias())[id] = 100;
    return request;
  };
  grpc::ClientContext running, late;
  Reader stream = BeginStream(running);
  v1::GenerateRequest impatient = Request("x", 1);
  impatient.set_max_queue_ms(
      20);  // too few steps are measured to say at once that it is too little
  EXPECT_EQ(Unary(impatient).error_code(), StatusCode::DEADLINE_EXCEEDED);
  Cancel(running, stream);
  FinalOf(with_token(info.end_token_ids(0)));
  v1::GenerateRequest stop = with_token('Q');
  FinalOf(stop);  // length
  stop.mutable_stop()->add_token_ids('Q');
  FinalOf(stop);
  stop.mutable_stop()->clear_token_ids();
  stop.mutable_stop()->add_strings("Q");
  FinalOf(stop);
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1000));
  stream = stub_->Generate(&late, Request("stream", 4000));
  v1::GenerateResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  ASSERT_TRUE(Comes("asymserve_sequences_running", 0));
  const Samples metrics = server_->Metrics();
  EXPECT_EQ(metrics.at(Ended("eos")), 1);
  EXPECT_EQ(metrics.at(Ended("length")), 1);
  EXPECT_EQ(metrics.at(Ended("stop")), 2);
  EXPECT_EQ(metrics.at(Ended("queue_timeout")), 1);
  EXPECT_EQ(metrics.at(Ended("error")), 0);
  // A client whose deadline passes may cancel before the server's clock says so.
  EXPECT_GE(metrics.at(Ended("cancelled")), 1);
  EXPECT_EQ(metrics.at(Ended("cancelled")) + metrics.at(Ended("deadline")), 2);
}

TEST_F(MetricsValuesTest, TheTimeSinceTheLastStepRunsOn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto since = [&] { return server_->Metrics().at("asymserve_seconds_since_last_step"); };
  EXPECT_EQ(since(), -1);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(Unary(Request("x", 1)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double first = since();
  EXPECT_GE(first, 0.05);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_GE(since(), first + 0.05);
  const double last = since();
  EXPECT_LT(last, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

TEST_F(MetricsValuesTest, WhatIsFixedAtTheStartIsAsTheServerSaysElsewhere) {
  const double before = static_cast<double>(time(nullptr));
  ASSERT_NO_FATAL_FAILURE(Start());
  const Samples metrics = server_->Metrics();
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(metrics.at("asymserve_build_info{version=\"" + info.server_version() + "\"}"), 1);
  EXPECT_GE(metrics.at("asymserve_start_time_seconds"), before);
  EXPECT_LE(metrics.at("asymserve_start_time_seconds"), static_cast<double>(time(nullptr)) + 1);
  const std::string phase = server_->LogValue("startup", "phase");
  const double seconds = std::stod(server_->LogValue("startup", "seconds"));
  EXPECT_NEAR(metrics.at("asymserve_startup_seconds{phase=\"" + phase + "\"}"), seconds,
              1e-5 * seconds);
  EXPECT_GT(metrics.at("asymserve_startup_seconds{phase=\"total\"}"), seconds);
}

TEST_F(MetricsValuesTest, ConnectionsBeyondTheDescriptorsAreRefusedAndCounted) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_TRUE(Unary(Request("connected", 1)).ok());
  EXPECT_TRUE(Comes("asymserve_refused_connections_total", 0));
  rlimit before{};
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, nullptr, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(server_->descriptors()) + 40;  // connections leave 64 alone
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, &few, nullptr), 0);
  for (int i = 0; i < 5; ++i) {
    const int connection = ConnectTo(server_->address());
    ASSERT_GE(connection, 0);
    char byte = 0;
    EXPECT_LE(read(connection, &byte, 1), 0) << "it was let in";
    close(connection);
  }
  EXPECT_TRUE(Comes("asymserve_refused_connections_total", 5));
  EXPECT_TRUE(Unary(Request("still connected", 1)).ok());
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, &before, nullptr), 0);
  stub_ = server_->Stub();
  EXPECT_TRUE(Unary(Request("connected again", 1)).ok());
  EXPECT_TRUE(Comes("asymserve_refused_connections_total", 5));
}

TEST_F(MetricsValuesTest, ConnectionsBeyondThoseThatMayBeOpenAreRefusedUntilOthersEnd) {
  ASSERT_NO_FATAL_FAILURE(Start({"server.max_connections=8"}));
  ASSERT_TRUE(Unary(Request("connected", 1)).ok());
  std::vector<int> connections;
  const auto let_in = [&] {  // the server speaks first, its settings, or hangs up
    connections.push_back(ConnectTo(server_->address()));
    const timeval patience = {.tv_sec = 30, .tv_usec = 0};
    setsockopt(connections.back(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char byte = 0;
    return read(connections.back(), &byte, 1) == 1;
  };
  int open = 0;
  while (open < 8 && let_in()) ++open;
  EXPECT_GE(open, 1);
  EXPECT_LE(open, 7) << "more than eight with the fixture's own";
  EXPECT_FALSE(let_in());
  EXPECT_TRUE(Comes("asymserve_refused_connections_total", 2));
  EXPECT_TRUE(Unary(Request("still connected", 1)).ok());
  EXPECT_TRUE(server_->WaitForLog("hint=\"max_connections are open\""));
  for (const int connection : connections) close(connection);
  connections.clear();
  EXPECT_TRUE(Eventually(let_in));
  close(connections.back());
}

TEST_F(MetricsValuesTest, ADrainCountsItsSeconds) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"server.drain_seconds=60"}));
  grpc::ClientContext context;
  Reader stream = BeginStream(context);
  EXPECT_EQ(server_->Metrics().at("asymserve_draining_seconds"), 0);
  const auto begin = std::chrono::steady_clock::now();
  server_->Signal(SIGTERM);
  ASSERT_TRUE(server_->WaitForLog(" draining "));
  Samples metrics;
  EXPECT_TRUE(Eventually([&] {
    metrics = server_->Metrics();
    return metrics.at("asymserve_draining_seconds") >= 0.05;
  }));
  EXPECT_EQ(metrics.at("asymserve_drain_budget_seconds"), 60);
  EXPECT_LT(metrics.at("asymserve_draining_seconds"),
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  EXPECT_EQ(metrics.at("asymserve_open_calls"), 1);
  Cancel(context, stream);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

}  // namespace
}  // namespace asymserve::testing
