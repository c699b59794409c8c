// A served script over a real socket, for the tests of this folder: every byte expected is known.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/server/engine_server.h"
#include "engine/server/scripted_source.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {

inline constexpr const char* kAnswer =
    "<|channel|>analysis<|message|>2+2 is 4<|end|><|start|>assistant<|channel|>final<|message|>It is 4, "
    "é.<|return|>";
inline constexpr const char* kCall =
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"SF\"}<|call|>";
inline constexpr const char* kPython = "<|channel|>analysis to=python code<|message|>print(\"hi\")\n<|call|>";

class EngineServerTest : public ::testing::Test {
 protected:
  void start(std::string script, int token_ms = 0,
             ModelProfile profile = {.system_message = harmony::SystemMessage::kOmit, .python = true}) {
    auto server = EngineServer::start(
        {.served_name = "abacus"},
        [&, script, token_ms, profile](const EngineServer::Progress&) -> Result<ServedModel> {
          ServedModel model{.name = "abacus",
                            .created_s = 1,
                            .profile = profile,
                            .tokenizer = harmony::byte_level_tokenizer(),
                            .format = {},
                            .context = 400,
                            .vocabulary = 300,
                            .stop_tokens = {}};
          model.format = *harmony::FormatTokens::of(model.tokenizer);
          model.stop_tokens = {model.format.return_, model.format.call};
          auto source = std::make_unique<ScriptedSource>(model.tokenizer, script, token_ms);
          source_ = source.get();
          model.source = std::move(source);
          return model;
        });
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
    ASSERT_TRUE(server_->wait_ready().has_value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }

  http::Response post(std::string target, const std::string& body) {
    auto response = client_.request(url_,
                                    {.method = "POST",
                                     .target = std::move(target),
                                     .headers = {{"content-type", "application/json"}},
                                     .body = body},
                                    {});
    EXPECT_TRUE(response.has_value()) << response.error().message;
    return response.value_or(http::Response{});
  }
  http::Response get(std::string target) {
    return client_.request(url_, {.target = std::move(target)}, {}).value_or(http::Response{});
  }
  // A chat with one message and further members (", \"n\": 2").
  http::Response chat(const std::string& more = "", const std::string& content = "2+2?") {
    return post("/v1/chat/completions", R"({"model":"abacus","messages":[{"role":"user","content":")" +
                                            content + "\"}]" + more + "}");
  }
  Json chat_json(const std::string& more = "") {
    const auto response = chat(more);
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body).value_or(Json());
  }
  std::vector<std::string> chat_events(const std::string& more = "") {
    const auto response = chat(R"(,"stream":true)" + more);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(response.headers.get("content-type"), ::testing::HasSubstr("text/event-stream"));
    std::vector<std::string> events;
    http::SseParser parser([&](std::string_view, std::string_view data) { events.emplace_back(data); });
    parser.feed(response.body);
    return events;
  }

  ScriptedSource* source_ = nullptr;
  std::unique_ptr<EngineServer> server_;
  http::Client client_;
  std::string url_;
};

inline const Json& choice_of(const Json& body, std::size_t index = 0) {
  return body.find("choices")->items().at(index);
}

}  // namespace capstan::engine
