// Goal: over HTTP, the report tells routers the blocks that prompt_blocks names, and a crowd of clients that leave at any
// moment leaves nothing behind. Method: the server over a random checkpoint in little memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/prng.h"
#include "base/text.h"
#include "engine/server/load_model.h"
#include "engine/testing/random_checkpoint.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;

class KvServing : public ::testing::Test {
 protected:
  KvServing() {
    testing::RandomCheckpoint({.layers = 2, .hidden = 32, .experts = 2, .vocab = 272, .window = 70}).write(directory_.path());
    EXPECT_TRUE(write_file_atomic(directory_.path() / "tokenizer.json", harmony::byte_level_json().dump()));
  }
  void serve(LoadOptions options = {}) {
    options.model = directory_.path();
    options.name = "random";
    options.threads = 1;
    auto server = EngineServer::start({.served_name = "random"}, [options](const auto&) {
      return load_served_model(options, [](const auto&) {});
    });
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
    const auto ready = server_->wait_ready();
    ASSERT_TRUE(ready.has_value()) << ready.error().message;
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }
  http::Response ask(const std::string& method, const std::string& target, const std::string& body = {},
                     http::Headers headers = {}) {
    http::Client client;
    return client.request(url_, {.method = method, .target = target, .headers = std::move(headers), .body = body}, {})
        .value_or(http::Response{.status = 0});
  }
  Json json(const std::string& method, const std::string& target, const std::string& body = {}) {
    const auto response = ask(method, target, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body).value_or(Json());
  }
  static std::string chat_body(const std::string& messages, const std::string& more) {
    return R"({"model":"random","messages":[)" + messages + "]" + more + "}";
  }
  static std::int64_t cached(const Json& answer) {
    return *answer.find("usage")->find("prompt_tokens_details")->get_int("cached_tokens");
  }
  // The value of a metric that has one series.
  double metric(const std::string& name) {
    const std::string text = ask("GET", "/metrics").body;
    for (const auto line : split(text, '\n')) {
      if (line.starts_with(name + "{")) return std::stod(std::string(line.substr(line.rfind(' ') + 1)));
    }
    ADD_FAILURE() << name;
    return -1;
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<EngineServer> server_;
  std::string url_;
};

std::string user(const std::string& text) { return R"({"role":"user","content":")" + text + R"("})"; }

TEST_F(KvServing, TheNextTurnResumesWhereTheAnalysisWasDropped) {
  serve();
  const std::string question(700, 'q');
  const Json first = json("POST", "/v1/chat/completions",
                          chat_body(user(question), R"(,"seed":3,"max_tokens":150)"));
  EXPECT_EQ(cached(first), 0);
  const auto prompt = *first.find("usage")->get_int("prompt_tokens");
  const Json again = json("POST", "/v1/chat/completions",
                          chat_body(user(question), R"(,"seed":3,"max_tokens":150)"));
  EXPECT_EQ(cached(again), prompt - 1);
  EXPECT_EQ(again.find("choices")->dump(), first.find("choices")->dump());
  const Json next = json("POST", "/v1/chat/completions",
                         chat_body(user(question) + R"(,{"role":"assistant","content":"so"},)" + user("and?"),
                                   R"(,"seed":3,"max_tokens":5)"));
  EXPECT_GE(cached(next), prompt);
  EXPECT_GT(metric("vllm:prefix_cache_hits_total"), 1000);
}

TEST_F(KvServing, TheReportNamesTheBlocksOfPrompts) {
  serve();
  const std::string body = chat_body(user(std::string(300, 'x')), R"(,"max_tokens":3)");
  const Json wanted = json("POST", "/v1/chat/prompt_blocks", body);
  const Json before = json("GET", "/v1/kv_blocks");
  EXPECT_EQ(before.find("reset")->as_bool(), true);
  EXPECT_EQ(before.find("changes")->size(), 0u);
  json("POST", "/v1/chat/completions", body);
  const Json after = json("GET", fmt::format("/v1/kv_blocks?epoch={}&since={}", *before.get_string("epoch"),
                                             *before.get_int("sequence")));
  EXPECT_EQ(after.find("reset")->as_bool(), false);
  std::set<std::string> added;
  for (const Json& change : after.find("changes")->items()) added.insert(change.items()[1].as_string());
  ASSERT_EQ(static_cast<std::int64_t>(wanted.find("blocks")->size()), *wanted.get_int("prompt_tokens") / 64);
  for (const Json& name : wanted.find("blocks")->items()) EXPECT_TRUE(added.contains(name.as_string()));
  EXPECT_EQ(ask("GET", "/v1/kv_blocks?since=x").status, 400);
  EXPECT_EQ(ask("GET", "/v1/kv_blocks?epoch=xyz").status, 400);
  EXPECT_EQ(ask("POST", "/v1/chat/prompt_blocks", "{").status, 400);
}

TEST_F(KvServing, APriorityThatIsNoNumberIsRefused) {
  serve();
  const std::string body = chat_body(user("hi"), R"(,"max_tokens":2)");
  EXPECT_EQ(ask("POST", "/v1/chat/completions", body, {{"x-capstan-priority", "high"}}).status, 400);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", body, {{"x-capstan-priority", "-2"}, {"x-capstan-tenant", "a"}}).status, 200);
}

TEST_F(KvServing, AContextThatItsMemoryCannotHoldIsRefusedWithWhatWouldFit) {
  LoadOptions options{.context = 100'000, .kv_bytes = 2 << 20};
  options.model = directory_.path();
  options.name = "random";
  const auto result = load_served_model(options, [](const auto&) {});
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, HasSubstr("--kv-bytes"));
}

TEST_F(KvServing, ACrowdThatLeavesAtAnyMomentLeavesNothingBehind) {
  serve({.sequences_max = 8, .queue_max = 200, .kv_bytes = 3 << 20});
  constexpr int kRequests = 160, kThreads = 10;
  std::mutex mutex;
  std::map<std::string, std::set<std::string>> answers;  // by body: all must be alike
  std::atomic<int> left = 0, answered = 0;
  std::vector<std::thread> clients;
  for (int thread = 0; thread < kThreads; ++thread) {
    clients.emplace_back([&, thread] {
      for (int number = thread; number < kRequests; number += kThreads) {
        Prng prng(static_cast<std::uint64_t>(number));
        const std::string tools =
            prng.below(2) == 0 ? "" : R"(,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";
        const bool leaves = prng.below(3) == 0;
        const std::string body =
            chat_body(user(std::string(20 + 100 * prng.below(5), static_cast<char>('a' + prng.below(3)))),
                      fmt::format(R"(,"seed":{},"max_tokens":{},"n":{}{}{})", prng.below(3), 5 + 20 * prng.below(3),
                                  1 + prng.below(2), tools, leaves ? R"(,"stream":true)" : ""));
        const http::Request request{.method = "POST",
                                    .target = "/v1/chat/completions",
                                    .headers = {{"x-capstan-tenant", std::string(1, static_cast<char>('a' + prng.below(2)))},
                                                {"x-capstan-priority", std::to_string(prng.below(2))}},
                                    .body = body};
        http::Client client;
        if (leaves) {
          int pieces = 1 + static_cast<int>(prng.below(6));
          (void)client.stream(url_, request, {}, [](const auto&) { return true; },
                              [&](std::string_view) { return --pieces > 0; });
          ++left;
        } else {
          const auto response = client.request(url_, request, {});
          ASSERT_TRUE(response.has_value());
          ASSERT_EQ(response->status, 200) << response->body;
          const auto parsed = Json::parse(response->body);
          const std::lock_guard lock(mutex);
          answers[body].insert(parsed->find("choices")->dump());
          ++answered;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 500 && metric("vllm:num_requests_running") > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(metric("vllm:num_requests_running"), 0);
  EXPECT_EQ(metric("vllm:num_requests_waiting"), 0);
  EXPECT_EQ(metric("vllm:kv_cache_usage_perc"), 0);
  EXPECT_GT(left, 20);
  EXPECT_GT(answered, 80);
  for (const auto& [body, texts] : answers) EXPECT_EQ(texts.size(), 1u) << body;
}

}  // namespace
}  // namespace capstan::engine
