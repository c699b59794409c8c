// Goal: with engines that report their caches, a follow-up turn goes to the one that has its prefix, wherever that is, and a
// hot prefix does not overload it; with servers that report nothing, the same from an estimate. Method: scripted engines
// behind real sockets, whose blocks are the pieces of the message's text.
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <thread>

#include "gateway/gateway.h"
#include "gateway/kv_watch.h"
#include "http/client.h"
#include "routing/text_chain.h"

namespace capstan::gateway {
namespace {

using namespace std::chrono_literals;

std::string content_of(const http::Request& request) {
  const Json body = Json::parse(request.body).value();
  return std::string(*body.find("messages")->items().front().get_string("content"));
}

std::string hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

class ScriptedEngine {
 public:
  explicit ScriptedEngine(bool reports) {
    http::Router router;
    router.add("POST", "/v1/chat/completions", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      ++chats;
      while (held) std::this_thread::sleep_for(1ms);
      learn(content_of(request));
      writer->respond(http::Response::json(200, Json::object({{"object", "chat.completion"}})));
    });
    if (reports) {
      router.add("POST", "/v1/chat/prompt_blocks", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
        ++named;
        Json blocks = Json::array();
        for (const std::uint64_t name : routing::text_chain(content_of(request))) blocks.push_back(hex(name));
        writer->respond(http::Response::json(200, Json::object({{"block_tokens", 64}, {"blocks", std::move(blocks)}})));
      });
      router.add("GET", "/v1/kv_blocks", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
        writer->respond(http::Response::json(200, report(request)));
        ++polled;
      });
    }
    server_ = http::Server::start({.threads = 48}, router).value();
  }

  // As after having computed it.
  void learn(std::string_view text) {
    const std::scoped_lock lock(mutex_);
    for (const std::uint64_t name : routing::text_chain(text)) changes_.push_back(Json::array({"+", hex(name), hex(0)}));
  }
  void forget(std::string_view text) {
    const std::scoped_lock lock(mutex_);
    for (const std::uint64_t name : routing::text_chain(text)) changes_.push_back(Json::array({"-", hex(name)}));
  }
  int port() const { return server_->port(); }

  std::atomic<int> chats{0}, named{0}, polled{0};
  std::atomic<bool> held{false};

 private:
  Json report(const http::Request& request) {
    const std::scoped_lock lock(mutex_);
    const bool known = request.query_value("epoch") == "00000000000000ab";
    const std::int64_t since = known ? std::stoll(request.query_value("since").value_or("0")) : 0;
    Json changes = Json::array();
    for (auto at = static_cast<std::size_t>(since); at < changes_.size(); ++at) changes.push_back(changes_[at]);
    return Json::object({{"epoch", "00000000000000ab"},
                         {"sequence", static_cast<std::int64_t>(changes_.size())},
                         {"block_tokens", 64},
                         {"reset", !known},
                         {"more", false},
                         {"changes", std::move(changes)}});
  }

  std::mutex mutex_;
  std::vector<Json> changes_;
  std::unique_ptr<http::Server> server_;
};

class Directory final : public ReplicaDirectory {
 public:
  std::vector<Replica> list;
  std::vector<Replica> replicas() const override { return list; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }
};

class KvRoutingTest : public testing::Test {
 protected:
  void start(bool reports) {
    for (int i = 0; i < 2; ++i) {
      engines_.push_back(std::make_unique<ScriptedEngine>(reports));
      directory_.list.push_back({.id = fmt::format("e-{}", i), .model = "m",
                                 .url = fmt::format("http://127.0.0.1:{}", engines_.back()->port()), .ready = true});
    }
    gateway_.mount(router_);
    server_ = http::Server::start({}, router_).value();
  }
  void chat(const std::string& content) {
    const Json body = Json::object(
        {{"model", "m"}, {"messages", Json::array({Json::object({{"role", "user"}, {"content", content}})})}});
    http::Client client;
    const auto answer = client.request(fmt::format("http://127.0.0.1:{}", server_->port()),
                                       {.method = "POST", .target = "/v1/chat/completions", .body = body.dump()}, {});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->status, 200) << answer->body;
  }
  // Both engines were asked for changes since now.
  void wait_for_reports() {
    const int before[] = {engines_[0]->polled, engines_[1]->polled};
    for (int i = 0; i < 1'000 && (engines_[0]->polled < before[0] + 2 || engines_[1]->polled < before[1] + 2); ++i)
      std::this_thread::sleep_for(10ms);
  }
  int which_got(const std::string& content) {
    const int before = engines_[0]->chats;
    chat(content);
    return engines_[0]->chats > before ? 0 : 1;
  }
  // So many requests at once; how many the first engine got.
  std::vector<int> burst(const std::string& content, int count) {
    const int before[] = {engines_[0]->chats, engines_[1]->chats};
    for (auto& engine : engines_) engine->held = true;
    std::vector<std::future<void>> all;
    for (int i = 0; i < count; ++i) all.push_back(std::async(std::launch::async, [&] { chat(content); }));
    for (int i = 0; i < 2'000 && engines_[0]->chats + engines_[1]->chats < before[0] + before[1] + count; ++i)
      std::this_thread::sleep_for(5ms);
    for (auto& engine : engines_) engine->held = false;
    all.clear();
    return {engines_[0]->chats - before[0], engines_[1]->chats - before[1]};
  }

  Directory directory_;
  Gateway gateway_{directory_, std::make_shared<prometheus::Registry>(), {}};
  http::Router router_;
  std::vector<std::unique_ptr<ScriptedEngine>> engines_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(KvRoutingTest, AFollowUpTurnGoesToTheEngineThatHasItsPrefixWhereverThatIs) {
  start(true);
  const std::string first(8 * routing::kPieceBytes, 'a');
  const int had = which_got(first);
  wait_for_reports();
  EXPECT_EQ(which_got(first + std::string(500, 'b')), had);
  // Its engine forgets it, and the other one learns it from elsewhere: no estimate could know.
  engines_[static_cast<std::size_t>(had)]->forget(first);
  engines_[static_cast<std::size_t>(1 - had)]->learn(first);
  wait_for_reports();
  EXPECT_EQ(which_got(first + std::string(500, 'c')), 1 - had);
  EXPECT_GT(engines_[0]->named + engines_[1]->named, 0);
}

TEST_F(KvRoutingTest, AHotPrefixDoesNotOverloadTheEngineThatHasIt) {
  start(true);
  const std::string hot(8 * routing::kPieceBytes, 'h');
  const auto had = static_cast<std::size_t>(which_got(hot));
  wait_for_reports();
  const auto got = burst(hot, 40);
  // In tokens: 512 of a prompt of about 530 are cached at one of them, and an answer counts 256.
  const int here = got[had] * (20 + 256), there = got[1 - had] * (530 + 256);
  EXPECT_GT(got[had], got[1 - had]) << "the cache is used";
  EXPECT_LE(here - there, 512 + 786 + 276) << "but for what is cached and one request, both carry the same";
}

TEST_F(KvRoutingTest, ServersWithoutAReportAreEstimatedFromWhatWasSentThere) {
  start(false);
  const std::string first(8 * routing::kPieceBytes, 'a');
  const int had = which_got(first);
  for (int turn = 1; turn < 6; ++turn) EXPECT_EQ(which_got(first + std::string(300 * static_cast<std::size_t>(turn), 'b')), had);
  const auto got = burst(first, 40);
  EXPECT_GT(got[0], 8);
  EXPECT_GT(got[1], 8);
}

TEST(KvReportTest, ABrokenReportIsNone) {
  CachedPrefixes cache;
  for (const char* text : {"", "[]", "{}", R"({"epoch":"x","sequence":1,"block_tokens":64,"reset":true,"changes":[]})",
                           R"({"epoch":"ab","sequence":-1,"block_tokens":64,"reset":true,"changes":[]})",
                           R"({"epoch":"ab","sequence":1,"block_tokens":64,"reset":true,"changes":[["+"]]})",
                           R"({"epoch":"ab","sequence":1,"block_tokens":64,"reset":true,"changes":[[7,8]]})"}) {
    if (!apply_kv_report(text, cache)) continue;
    EXPECT_EQ(cache.reported.size(), 0u) << text;
  }
  EXPECT_TRUE(apply_kv_report(
      R"({"epoch":"ab","sequence":2,"block_tokens":64,"reset":true,"more":false,"changes":[["+","1f","0"]]})", cache));
  EXPECT_EQ(cache.reported.size(), 1u);
  EXPECT_EQ(read_prompt_blocks(R"({"blocks":["1f","20"]})"), (std::vector<std::uint64_t>{0x1f, 0x20}));
  EXPECT_TRUE(read_prompt_blocks(R"({"blocks":["1f",3]})").empty());
}

}  // namespace
}  // namespace capstan::gateway
