// Goal: the server over the real engine: a random checkpoint answers nonsense, but the same nonsense for the
// same seed, alone or among others, and leaves cleanly at any moment.
#include "engine/server/load_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "base/file.h"
#include "engine/testing/random_checkpoint.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;

class LoadModel : public ::testing::Test {
 protected:
  LoadModel() {
    testing::RandomCheckpoint({.vocab = 272}).write(directory_.path());
    write("tokenizer.json", harmony::byte_level_json().dump());
  }
  void write(const char* name, const std::string& text) {
    ASSERT_TRUE(write_file_atomic(directory_.path() / name, text));
  }
  Result<ServedModel> load(LoadOptions options = {}) {
    if (options.model.empty()) options.model = directory_.path();
    options.name = "random";
    options.threads = 1;
    return load_served_model(options, [](const LoadProgress&) {});
  }
  void serve(LoadOptions options = {}) {
    auto server = EngineServer::start({.served_name = "random"},
                                      [this, options](const auto&) { return load(options); });
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
    const auto ready = server_->wait_ready();
    ASSERT_TRUE(ready.has_value()) << ready.error().message;
  }
  http::Response chat(const std::string& more) {
    http::Client client;
    return client
        .request(fmt::format("http://127.0.0.1:{}", server_->port()),
                 {.method = "POST",
                  .target = "/v1/chat/completions",
                  .body = R"({"model":"random","messages":[{"role":"user","content":"hi"}])" + more + "}"},
                 {})
        .value_or(http::Response{.status = 0});
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<EngineServer> server_;
};

// The answer without what differs between requests.
std::string choices(const http::Response& response) {
  const auto body = Json::parse(response.body);
  return body && body->contains("choices") ? body->find("choices")->dump() : response.body;
}

TEST_F(LoadModel, TheSameSeedGivesTheSameAnswerAloneAndAmongOthers) {
  serve();
  const std::string alone = choices(chat(R"(,"seed":1,"max_tokens":40)"));
  EXPECT_NE(alone, choices(chat(R"(,"seed":2,"max_tokens":40)")));
  std::vector<std::thread> clients;
  std::vector<std::string> answers(6);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    clients.emplace_back([&, i] {
      answers[i] = choices(chat(fmt::format(R"(,"seed":{},"max_tokens":40)", i % 2 == 0 ? 1 : 100 + i)));
    });
  }
  for (std::thread& client : clients) client.join();
  for (std::size_t i = 0; i < answers.size(); i += 2) EXPECT_EQ(answers[i], alone);
}

TEST_F(LoadModel, WhateverARandomModelSaysIsAnAnswer) {
  serve();
  for (int seed = 0; seed < 12; ++seed) {
    const auto response = chat(fmt::format(
        R"(,"seed":{},"max_tokens":60,"temperature":2,"n":2,"logprobs":true,"top_logprobs":3)", seed));
    ASSERT_EQ(response.status, 200) << response.body;
    const auto body = Json::parse(response.body);
    ASSERT_TRUE(body.has_value());
    EXPECT_GT(*body->find("usage")->get_int("completion_tokens"), 0);
  }
}

TEST_F(LoadModel, ADrainWithoutPatienceEndsWhatIsUnderWay) {
  serve();
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back([&] { chat(R"(,"n":4,"temperature":2)"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  server_->drain(0);
  for (std::thread& client : clients) client.join();
}

TEST_F(LoadModel, AFullQueueRefusesWithoutLosingAnyone) {
  serve({.sequences_max = 1, .queue_max = 1});
  std::vector<std::thread> clients;
  std::vector<int> status(8);
  for (std::size_t i = 0; i < status.size(); ++i)
    clients.emplace_back([&, i] { status[i] = chat(R"(,"max_tokens":200,"temperature":0)").status; });
  for (std::thread& client : clients) client.join();
  for (const int code : status) EXPECT_TRUE(code == 200 || code == 429) << code;
  EXPECT_GE(std::ranges::count(status, 200), 1);
}

TEST_F(LoadModel, ProfileAndDirectoryErrorsSayWhatIsWrong) {
  const auto error = [&](LoadOptions options = {}) {
    const auto result = load(options);
    return result ? std::string("accepted") : result.error().message;
  };
  EXPECT_EQ(error(), "accepted");
  EXPECT_THAT(error({.context = 1 << 20}), HasSubstr("longer than the model's"));
  write("capstan.json", R"({"harmony":{"system_message":"sometimes"}})");
  EXPECT_THAT(error(), HasSubstr("\"sometimes\", not \"full\" or \"omit\""));
  write("capstan.json", R"({"harmony":{"system_message":"omit"},"builtin_tools":["python"]})");
  write("generation_config.json", R"({"do_sample":false})");
  const auto model = load();
  ASSERT_TRUE(model.has_value());
  EXPECT_TRUE(model->profile.python);
  EXPECT_EQ(model->profile.temperature, 0);
  write("generation_config.json", R"({"temperature":"warm"})");
  EXPECT_THAT(error(), HasSubstr("temperature is not a number"));
  write("generation_config.json", "{}");
  Json tokenizer = harmony::byte_level_json();
  tokenizer["added_tokens"].push_back(
      Json::object({{"id", 5000}, {"content", "<|far|>"}, {"special", true}}));
  write("tokenizer.json", tokenizer.dump());
  EXPECT_THAT(error(), HasSubstr("ids up to 5000, but the model only 272"));
}

}  // namespace
}  // namespace capstan::engine
