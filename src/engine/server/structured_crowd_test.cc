// Goal: a thousand requests at once over HTTP, with schemas, grammars, tools, several choices, seeds and
// clients that leave at any moment: every answer obeys what its request binds, equals the answer to the same
// request alone (another server, without prefix cache and guesses), and nothing is left behind. Method: real
// constraints over a checkpoint with random weights, in little memory.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/prng.h"
#include "base/text.h"
#include "engine/grammar/schema_validator.h"
#include "engine/server/load_model.h"
#include "engine/testing/random_checkpoint.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {
namespace {

constexpr int kRequests = 1'000, kThreads = 12, kDifferent = 150;

constexpr const char* kSchemas[] = {
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,)"
    R"("maximum":99}},"required":["name","age"],"additionalProperties":false})",
    R"({"type":"array","items":{"type":"string","maxLength":3},"uniqueItems":true,"minItems":2,"maxItems":4})",
    R"({"type":"object","properties":{"kind":{"enum":["a","b"]},"v":{}},"required":["kind","v"],"if":{"properties":{)"
    R"("kind":{"const":"a"}}},"then":{"properties":{"v":{"type":"integer"}}},"else":{"properties":{"v":{)"
    R"("type":"string","maxLength":4}}}})",
    R"({"$defs":{"n":{"type":"object","properties":{"c":{"type":"array","items":{"$ref":"#/$defs/n"},"maxItems":2}},)"
    R"("required":["c"],"additionalProperties":false}},"$ref":"#/$defs/n"})",
    R"({"type":"string","not":{"pattern":"a"},"maxLength":10})",
    R"({"type":"object","patternProperties":{"^x[0-9]$":{"type":"boolean"}},"additionalProperties":false,)"
    R"("minProperties":1,"maxProperties":3})",
    R"({"oneOf":[{"type":"integer","maximum":40},{"type":"integer","multipleOf":5,"minimum":30}],"minimum":0,)"
    R"("maximum":100})",
    R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":9},"contains":{"const":7},"maxItems":5})",
    R"({"type":"object","properties":{"when":{"type":"string","format":"date"},"tags":{"type":"array","items":{)"
    R"("enum":["r","g","b"]},"uniqueItems":true}},"required":["when"]})"};
constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"weather","strict":true,"parameters":{"type":"object",)"
    R"("properties":{"city":)"
    R"({"type":"string","maxLength":6},"unit":{"enum":["c","f"]}},"required":["city","unit"],)"
    R"("additionalProperties":false}}},)"
    R"({"type":"function","function":{"name":"stop"}}])";
constexpr const char* kArguments =
    R"({"type":"object","properties":{"city":{"type":"string","maxLength":6},"unit":{)"
    R"("enum":["c","f"]}},)"
    R"("required":["city","unit"],"additionalProperties":false})";

struct Question {
  std::string path, body;
  std::string schema = {};  // of the content
  bool must_call = false;
};

Question question(std::uint64_t number) {
  Prng prng(number + 77);
  const auto kind = prng.below(8);
  std::string more = fmt::format(R"(,"seed":{},"temperature":1.3,"n":{},"max_tokens":{})", prng.below(1000),
                                 1 + prng.below(2), kind == 7 ? 30 : 60 + prng.below(3) * 30);
  Question out{.path = "/v1/chat/completions", .body = {}};
  if (kind < 3) {
    out.schema = kSchemas[prng.below(std::size(kSchemas))];
    more +=
        R"(,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":)" + out.schema + "}}";
  } else if (kind == 3) {
    more += std::string(",") + kTools;  // strict, if it calls
  } else if (kind == 4) {
    out.must_call = true;
    more += std::string(",") + kTools +
            (prng.below(2) == 0 ? R"(,"tool_choice":"required")"
                                : R"(,"tool_choice":{"type":"function","function":{)"
                                  R"("name":"weather"}})");
  } else if (kind == 5) {
    more += R"(,"grammar":"root ::= \"<\" [a-c]{2,4} \">\"")";
  } else if (kind == 6) {
    out.path = "/v1/completions";
    out.body = R"({"model":"random","prompt":")" + std::string(1 + prng.below(200), 'p') + "\"" + more +
               R"(,"guided_regex":"[0-9]{3}-[a-f]{2}"})";
    return out;
  }
  out.body = R"({"model":"random","messages":[{"role":"user","content":")" +
             std::string(20 + 60 * prng.below(4), static_cast<char>('a' + prng.below(3))) + "\"}]" + more +
             "}";
  return out;
}

class StructuredCrowd : public ::testing::Test {
 protected:
  StructuredCrowd() {
    testing::RandomCheckpoint({.layers = 2, .hidden = 32, .experts = 2, .vocab = 272, .window = 70})
        .write(directory_.path());
    EXPECT_TRUE(write_file_atomic(directory_.path() / "tokenizer.json", harmony::byte_level_json().dump()));
  }
  std::string serve(std::unique_ptr<EngineServer>& server, LoadOptions options) {
    options.model = directory_.path();
    options.name = "random";
    options.threads = 1;
    auto started = EngineServer::start({.served_name = "random"}, [options](const auto&) {
      return load_served_model(options, [](const auto&) {});
    });
    EXPECT_TRUE(started.has_value() && (*started)->wait_ready().has_value());
    server = std::move(*started);
    return fmt::format("http://127.0.0.1:{}", server->port());
  }
  static double metric(const std::string& url, const std::string& name) {
    http::Client client;
    const auto response = client.request(url, {.method = "GET", .target = "/metrics"}, {});
    const std::string text = response ? response->body : std::string();
    for (const auto line : split(text, '\n'))
      if (line.starts_with(name + "{")) return std::stod(std::string(line.substr(line.rfind(' ') + 1)));
    return -1;
  }

  testing::TemporaryDirectory directory_;
};

// The choices, without the ids of calls, which are random.
std::string choices_of(const Json& body) {
  Json choices = *body.find("choices");
  for (Json& choice : choices.items()) {
    Json* message = choice.find("message");
    if (message == nullptr || message->find("tool_calls") == nullptr) continue;
    for (Json& call : message->find("tool_calls")->items()) call.erase("id");
  }
  return choices.dump();
}

std::string broken_promise(const Question& question, const Json& body) {
  for (const Json& choice : body.find("choices")->items()) {
    const auto reason = choice.get_string("finish_reason").value_or("");
    const Json* message = choice.find("message");
    if (message == nullptr) continue;
    if (!question.schema.empty()) {
      const auto value = Json::parse(message->get_string("content").value_or(""));
      if (reason != "stop" || !value) return "no whole answer: " + reason;
      if (auto why = testing::invalid_because(*Json::parse(question.schema), *value); !why.empty())
        return why;
    }
    const Json* calls = message->find("tool_calls");
    if (question.must_call && (calls == nullptr || reason != "tool_calls")) return "no call: " + reason;
    for (const Json& call : calls == nullptr || reason != "tool_calls" ? Json::Array{} : calls->items()) {
      const Json& function = *call.find("function");
      if (function.get_string("name") != "weather") continue;
      const auto arguments = Json::parse(function.get_string("arguments").value_or(""));
      if (!arguments) return "arguments are no JSON";
      if (auto why = testing::invalid_because(*Json::parse(kArguments), *arguments); !why.empty()) return why;
    }
  }
  return "";
}

TEST_F(StructuredCrowd, AThousandMixedRequestsObeyDoNotCrossAndLeaveNothing) {
  std::unique_ptr<EngineServer> server;
  const std::string url = serve(server, {.sequences_max = 8, .queue_max = 200, .kv_bytes = 3 << 20});
  std::mutex mutex;
  std::map<std::uint64_t, std::set<std::string>> answers;  // by question
  std::atomic<int> left = 0, answered = 0;
  std::vector<std::thread> clients;
  for (int thread = 0; thread < kThreads; ++thread) {
    clients.emplace_back([&, thread] {
      for (int number = thread; number < kRequests; number += kThreads) {
        Prng prng(static_cast<std::uint64_t>(number));
        const std::uint64_t which = prng.below(kDifferent);
        Question ask = question(which);
        http::Client client;
        http::Request request{
            .method = "POST",
            .target = ask.path,
            .headers = {{"x-capstan-tenant", std::string(1, static_cast<char>('a' + prng.below(3)))}},
            .body = ask.body};
        if (prng.below(4) == 0) {
          request.body.pop_back();
          request.body += R"(,"stream":true})";
          int pieces = static_cast<int>(prng.below(8));
          (void)client.stream(
              url, request, {}, [&](const auto&) { return pieces > 0; },
              [&](std::string_view) { return --pieces > 0; });
          ++left;
          continue;
        }
        const auto response = client.request(url, request, {});
        ASSERT_TRUE(response.has_value());
        ASSERT_EQ(response->status, 200) << response->body;
        const auto body = Json::parse(response->body);
        ASSERT_EQ(broken_promise(ask, *body), "") << ask.body << "\n" << response->body;
        const std::lock_guard lock(mutex);
        answers[which].insert(choices_of(*body));
        ++answered;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 1000 && metric(url, "vllm:num_requests_running") > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(metric(url, "vllm:num_requests_running"), 0);
  EXPECT_EQ(metric(url, "vllm:num_requests_waiting"), 0);
  EXPECT_EQ(metric(url, "vllm:kv_cache_usage_perc"), 0);
  EXPECT_GT(left, kRequests / 6);
  EXPECT_EQ(left + answered, kRequests);
  server.reset();
  const std::string alone =
      serve(server, {.sequences_max = 1, .prefix_cache = false, .speculation_tokens = 0});
  for (const auto& [which, texts] : answers) {
    ASSERT_EQ(texts.size(), 1u) << question(which).body;
    http::Client client;
    const auto response = client.request(
        alone, {.method = "POST", .target = question(which).path, .body = question(which).body}, {});
    ASSERT_TRUE(response.has_value() && response->status == 200);
    ASSERT_EQ(choices_of(*Json::parse(response->body)), *texts.begin()) << question(which).body;
  }
}

}  // namespace
}  // namespace capstan::engine
