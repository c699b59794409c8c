// Goal: arrays run whole, bounded, and once; what a server does wrong is survived or told; pass@k is what its
// definition says. Method: a scripted OpenAI-compatible server and real sandboxes.
#include "agents/loop/runner.h"

#include <atomic>
#include <thread>

#include "agents/loop/replay.h"
#include "http/server.h"
#include "sandbox/sandbox_testing.h"

namespace capstan::agents::loop {
namespace {

std::string event(const Json& json) { return "data: " + json.dump() + "\n\n"; }

Json chunk(Json delta, Json finish = {}) {
  return Json::object({{"choices", Json::array({Json::object({{"index", 0},
                                                              {"delta", std::move(delta)},
                                                              {"finish_reason", std::move(finish)}})})}});
}

Json usage() {
  return Json::object(
      {{"choices", Json::array()},
       {"usage", Json::object({{"prompt_tokens", 7},
                               {"completion_tokens", 3},
                               {"prompt_tokens_details", Json::object({{"cached_tokens", 2}})}})}});
}

// Answers with the last user's text in capitals; what a text begins with makes it misbehave.
class Server {
 public:
  Server() {
    http::Router router;
    router.add("POST", "/v1/chat/completions",
               [this](const auto& request, const auto& writer) { chat(request, writer); });
    router.add("POST", "/v1/responses",
               [this](const auto& request, const auto& writer) { responses(request, writer); });
    router.add("GET", "/v1/models", [](const auto&, const auto& writer) {
      writer->respond(http::Response::json(200, *Json::parse(R"({"data":[{"id":"zeta"},{"id":"abacus"}]})")));
    });
    auto started = http::Server::start({}, router);
    EXPECT_TRUE(started) << started.error().message;
    server_ = std::move(*started);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", server_->port()); }
  std::atomic<int> requests = 0, at_once = 0, at_once_max = 0, refusals = 0;
  std::mutex mutex;
  Json last;
  std::string authorization;

 private:
  void chat(const http::Request& request, const http::ResponseWriterPtr& writer) {
    ++requests;
    const int now = ++at_once;
    for (int most = at_once_max; now > most && !at_once_max.compare_exchange_weak(most, now);) {
    }
    const Json body = *Json::parse(request.body);
    {
      const std::scoped_lock lock(mutex);
      last = body;
      authorization = request.headers.get("authorization");
    }
    answer(body, writer);
    --at_once;
  }

  void answer(const Json& body, const http::ResponseWriterPtr& writer) {
    const Json& message = body.find("messages")->items().back();
    const std::string text = message.get_string("content").value_or("");
    if (text.starts_with("busy") && refusals++ < 2) {
      auto response = http::Response::json(429, *Json::parse(R"({"error":{"message":"later"}})"));
      response.headers.set("retry-after", "0");
      return writer->respond(std::move(response));
    }
    if (text.starts_with("bad"))
      return writer->respond(http::Response::json(400, *Json::parse(R"({"error":{"message":"I refuse"}})")));
    if (text.starts_with("long")) {
      return writer->respond(http::Response::json(
          400, *Json::parse(R"({"error":{"message":"too long","code":"context_length_exceeded"}})")));
    }
    writer->start(200, {{"content-type", "text/event-stream"}});
    if (text.starts_with("slow")) std::this_thread::sleep_for(std::chrono::milliseconds(150));
    if (text.starts_with("broken")) {
      writer->write(event(chunk(Json::object({{"content", "half"}}))));
      return writer->finish();
    }
    if (text.starts_with("call")) {
      writer->write(event(chunk(*Json::parse(
          R"({"tool_calls":[{"index":0,"id":"x","function":{"name":"python","arguments":"{\"co"}}]})"))));
      writer->write(event(
          chunk(*Json::parse(R"({"tool_calls":[{"index":0,"function":{"arguments":"de\":\"2+3\"}"}}]})"),
                "tool_calls")));
    } else {
      std::string loud = text;
      for (char& c : loud) c = static_cast<char>(std::toupper(c));
      writer->write(event(chunk(Json::object({{"reasoning", "easy"}}))));
      for (const char c : loud) writer->write(event(chunk(Json::object({{"content", std::string(1, c)}}))));
      writer->write(event(chunk(Json::object(), "stop")));
    }
    writer->write(event(usage()) + "data: [DONE]\n\n");
    writer->finish();
  }

  void responses(const http::Request& request, const http::ResponseWriterPtr& writer) {
    const Json body = *Json::parse(request.body);
    {
      const std::scoped_lock lock(mutex);
      last = body;
    }
    const bool first = body.find("input")->size() == 1;
    const std::string_view reasoning =
        R"({"type":"reasoning","id":"rs","encrypted_content":"seal","summary":[],)"
        R"("content":[{"type":"reasoning_text","text":"hm"}]})";
    const std::string_view call =
        R"({"type":"function_call","id":"fc","call_id":"srv","name":"python","arguments":"{\"code\":\"2+3\"}"})";
    const std::string_view message =
        R"({"type":"message","role":"assistant","content":[{"type":"output_text","text":"five"}]})";
    const std::string output = first ? fmt::format("[{},{}]", reasoning, call) : fmt::format("[{}]", message);
    Json response = Json::object({{"status", "completed"}, {"output", *Json::parse(output)}});
    response["usage"] = *Json::parse(R"({"input_tokens":9,"output_tokens":4})");
    writer->start(200, {{"content-type", "text/event-stream"}});
    writer->write("event: response.completed\n" +
                  event(Json::object({{"type", "response.completed"}, {"response", std::move(response)}})));
    writer->finish();
  }

  std::unique_ptr<http::Server> server_;
};

class RunnerTest : public sandbox::SandboxTest {
 protected:
  void TearDown() override { std::filesystem::remove_all(directory_); }

  AgentsSpec spec(const std::string& yaml) {
    auto parsed = parse_agents(yaml, {.source = "t"});
    EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().front().text());
    parsed->output = directory_;
    return *parsed;
  }
  Result<Summary> run(const AgentsSpec& spec, RunnerEvents events = {}) {
    Runner runner(
        spec,
        {.launcher = launcher_.get(), .server = server_.url(), .key = "secret", .events = std::move(events)});
    auto summary = runner.run();
    results_ = runner.results();
    return summary;
  }
  // One episode with this prompt: its end, or why there is none.
  std::string one(const std::string& prompt, const std::string& more = "") {
    const auto ran =
        run(spec("kind: agent\nname: a\nmodel: m\nprompt: " + prompt + "\ntools: [python]\n" + more));
    if (!ran) return ran.error().message;
    return results_.empty() ? ran->failure : results_.front().end.reason + ": " + results_.front().end.answer;
  }

  std::filesystem::path directory_ = testing::TempDir() + "agents-" + random_hex(4);
  Server server_;
  std::vector<EpisodeResult> results_;
};

TEST_F(RunnerTest, AStreamedAnswerIsPutTogetherAndCounted) {
  std::string shown;
  RunnerEvents events;
  events.on_piece = [&](std::string_view piece, bool reasoning) {
    shown += reasoning ? "(" + std::string(piece) + ")" : piece;
  };
  ASSERT_TRUE(run(spec("kind: agent\nname: a\nmodel: m\nprompt: hello\n"), events));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].end.answer, "HELLO");
  EXPECT_EQ(results_[0].end.tokens.total(), 10);
  EXPECT_EQ(results_[0].end.tokens.cached, 2);
  EXPECT_EQ(shown, "(easy)HELLO");
  EXPECT_EQ(server_.authorization, "Bearer secret");
  EXPECT_EQ(ModelClient(Api::kChat, server_.url(), "").choose_model(), "abacus");
}

TEST_F(RunnerTest, ACallInPiecesRunsAndItsResultGoesBack) {
  EXPECT_EQ(one("call it"), "done: 5");  // the result of 2+3, in capitals
  EXPECT_EQ(results_[0].end.steps, 3);
}

TEST_F(RunnerTest, TheResponsesApiGetsItsItemsBackAsTheyCameUnderOurIds) {
  ASSERT_TRUE(
      run(spec("kind: agent\nname: a\nmodel: {name: m, api: responses}\nprompt: go\ntools: [python]\n")));
  EXPECT_EQ(results_[0].end.answer, "five");
  const Json& input = *server_.last.find("input");
  ASSERT_EQ(input.size(), 4u);
  EXPECT_EQ(input.items()[1].get_string("encrypted_content"), "seal");
  EXPECT_EQ(input.items()[2].get_string("call_id"), "call00001");
  EXPECT_EQ(input.items()[3].get_string("call_id"), "call00001");
  EXPECT_EQ(input.items()[3].get_string("output"), "5");
  const auto recording = read_recording(results_[0].recording);
  ASSERT_TRUE(recording) << recording.error().message;
  EXPECT_TRUE(replay(*recording, {})->same());
}

TEST_F(RunnerTest, ABusyServerIsAskedAgainAndOneThatRefusesIsNot) {
  EXPECT_EQ(one("busy"), "done: BUSY");
  EXPECT_EQ(server_.requests, 3);
  EXPECT_EQ(one("bad"), fmt::format("the model's server {} answered 400: I refuse", server_.url()));
  EXPECT_EQ(server_.requests, 4);
  EXPECT_EQ(one("long"), "context: ");
}

TEST_F(RunnerTest, AStreamThatBreaksOffIsAskedForAgainUntilTheTimeIsOver) {
  EXPECT_EQ(one("broken", "budget: {time: 800ms}\n"),
            fmt::format("the model's server {} broke off", server_.url()));
  EXPECT_GE(server_.requests, 2);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "1.jsonl"));
}

TEST_F(RunnerTest, AnArrayRunsEachEpisodeOnceWithinItsConcurrencyAndGoesOnWhereItStopped) {
  const AgentsSpec array = spec(
      "kind: agents\nname: a\nmodel: m\nprompt: '{{q}}'\ntasks: [{q: slow one}, {q: slow two}, {q: slow "
      "three}]\n"
      "episodes: 2\nconcurrency: 2\nscore: {python: 'answer == \"SLOW ONE\" or attempt / 4'}\n");
  auto summary = run(array);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->episodes, 6);
  EXPECT_EQ(summary->passed, 2);
  EXPECT_DOUBLE_EQ(summary->mean_score, (2 * 1 + 4 * 0.25) / 6);
  EXPECT_EQ(server_.at_once_max, 2);
  EXPECT_EQ(server_.requests, 6);

  // Two recordings are gone, one was never finished: only these run again.
  std::filesystem::remove(directory_ / "episodes/00001-0001.jsonl");
  std::filesystem::rename(directory_ / "episodes/00002-0000.jsonl",
                          directory_ / "episodes/00002-0000.jsonl.part");
  summary = run(array);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->episodes, 6);
  EXPECT_EQ(summary->earlier, 4);
  EXPECT_EQ(server_.requests, 8);
  const auto written = Json::parse(*read_file(directory_ / "summary.json"));
  ASSERT_TRUE(written);
  EXPECT_EQ(written->get_int("passed"), 2);

  AgentsSpec other = array;
  other.agent.model.temperature = 1;
  EXPECT_EQ(run(other).error().code, Code::kConflict);
}

TEST_F(RunnerTest, ShardsShareAnArrayAndARunWithoutShardsSumsUp) {
  const AgentsSpec array = spec(
      "kind: agents\nname: a\nmodel: m\nprompt: '{{q}}'\ntasks: [{q: one}, {q: two}, {q: slow "
      "three}]\nepisodes: 3\n");
  std::int64_t ran = 0;
  std::vector<std::jthread> shards;
  for (std::int64_t index = 0; index < 4; ++index) {
    shards.emplace_back([&, index] {
      Runner runner(array, {.launcher = launcher_.get(), .server = server_.url(), .shard = {index, 4}});
      const auto summary = runner.run();
      ASSERT_TRUE(summary) << summary.error().message;
      EXPECT_EQ(summary->episodes, summary->wanted);
      EXPECT_EQ(summary->wanted, index == 0 ? 3 : 2);
      const std::scoped_lock lock(server_.mutex);
      ran += summary->episodes;
    });
  }
  shards.clear();
  EXPECT_EQ(ran, 9);
  EXPECT_EQ(server_.requests, 9);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "summary.json"));
  const auto all = run(array);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->earlier, 9);
  EXPECT_EQ(server_.requests, 9);
}

TEST_F(RunnerTest, RecordingsOfRealToolsReplayToTheSameStepsAndAChangedOutputIsFound) {
  ASSERT_EQ(one("call it", "score: {python: 'len(calls)'}\n"), "done: 5");
  Recording recording = *read_recording(results_[0].recording);
  auto tools = Toolbox::open(*launcher_, recording.spec.sandbox);
  ASSERT_TRUE(tools);
  ModelClient model(Api::kChat, server_.url(), "");
  auto report = replay(recording, {.tools = tools->get(), .model = &model});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->same()) << report->differences[0].what << report->differences[0].now;
  EXPECT_EQ(report->steps, 4);
  recording.steps[1].outcome.output = "6";
  ASSERT_TRUE((*tools)->restart());
  report = replay(recording, {.tools = tools->get()});
  ASSERT_TRUE(report);
  ASSERT_FALSE(report->same());
  EXPECT_EQ(report->differences[0].step, 2);
  EXPECT_EQ(report->differences[0].now, "5");
}

TEST_F(RunnerTest, StopEndsWhatRunsAndKeepsWhatIsDone) {
  const AgentsSpec array = spec(
      "kind: agents\nname: a\nmodel: m\nprompt: '{{q}}'\ntasks: [{q: first}, {q: call me}]\nconcurrency: 1\n"
      "check: {command: 'case $(cat) in *FIRST*) ;; *) sleep 30;; esac'}\ntools: [python]\n");
  std::unique_ptr<Runner> runner;
  RunnerEvents events;
  std::jthread stopper;
  events.on_step = [&](const EpisodeKey& key, const Step& step) {
    if (key.task == 1 && step.number == 3) stopper = std::jthread([&] { runner->stop(); });
  };
  runner = std::make_unique<Runner>(
      array, RunnerOptions{.launcher = launcher_.get(), .server = server_.url(), .events = events});
  const auto summary = runner->run();
  ASSERT_TRUE(summary);
  EXPECT_EQ(summary->episodes, 1);
  EXPECT_EQ(summary->failed, 1);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "episodes/00001-0000.jsonl"));
}

// The definition, slowly: of all ways to choose k of n episodes, how many hold one that passed.
TEST(Summary, PassAtKIsTheShareOfChoicesWithAPass) {
  for (std::int64_t n = 1; n <= 6; ++n) {
    for (std::int64_t c = 0; c <= n; ++c) {
      std::vector<EpisodeResult> results;
      for (std::int64_t i = 0; i < n; ++i)
        results.push_back({.key = {0, i}, .end = {.passed = i < c}, .recording = {}});
      for (const auto& [k, share] : summarize(results, 1).pass_at) {
        int choices = 0, passing = 0;
        for (unsigned set = 0; set < 1u << n; ++set) {
          if (__builtin_popcount(set) != k) continue;
          ++choices;
          passing += (set & ((1u << c) - 1)) != 0;
        }
        EXPECT_NEAR(share, static_cast<double>(passing) / choices, 1e-12) << n << c << k;
      }
    }
  }
  EXPECT_EQ(summarize({}, 3).pass_at.size(), 0u);
}

}  // namespace
}  // namespace capstan::agents::loop
