// How: one request streams server-sent events; a Collector for each wire format adds them up.
#include "agents/loop/model_client.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "base/text.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kBackoffMs = 500;
constexpr std::int64_t kBackoffMaxMs = 30'000;
constexpr std::int64_t kNapMs = 100;   // between looks whether somebody cancelled
constexpr std::size_t kCallsMax = 64;  // of one reply
constexpr std::size_t kReplyBytesMax = 16u << 20;
constexpr std::size_t kErrorBytesMax = 64u << 10;

using Clock = std::chrono::steady_clock;

class Collector {
 public:
  explicit Collector(const OnPiece& on_piece) : on_piece_(on_piece) {}
  virtual ~Collector() = default;
  virtual void take(const Json& event) = 0;
  // The whole answer has come; otherwise the connection broke.
  bool complete() const { return complete_; }
  ModelReply reply;
  std::string error;

 protected:
  void show(std::string_view piece, bool reasoning) const {
    if (on_piece_ && !piece.empty()) on_piece_(piece, reasoning);
  }
  // The APIs' names for what went in and what came out differ.
  void take_usage(const Json* usage, const std::string& input, const std::string& output) {
    if (usage == nullptr || !usage->is_object()) return;
    reply.tokens.input = usage->get_int(input).value_or(0);
    reply.tokens.output = usage->get_int(output).value_or(0);
    if (const Json* details = usage->find(input + "_details"); details != nullptr) {
      reply.tokens.cached = details->get_int("cached_tokens").value_or(0);
    }
    if (const Json* details = usage->find(output + "_details"); details != nullptr) {
      reply.tokens.reasoning = details->get_int("reasoning_tokens").value_or(0);
    }
  }

  const OnPiece& on_piece_;
  bool complete_ = false;
};

class ChatCollector final : public Collector {
 public:
  using Collector::Collector;
  void take(const Json& event) override {
    if (const Json* failed = event.find("error"); failed != nullptr && !failed->is_null()) {
      error = failed->get_string("message").value_or("the server failed");
    }
    take_usage(event.find("usage"), "prompt_tokens", "completion_tokens");
    const Json* choices = event.find("choices");
    if (choices == nullptr || !choices->is_array() || choices->size() == 0) return;
    const Json& choice = choices->items().front();
    if (const Json* delta = choice.find("delta"); delta != nullptr) take_delta(*delta);
    if (auto finish = choice.get_string("finish_reason")) {
      reply.finish = *std::move(finish);
      complete_ = true;
    }
  }

 private:
  void take_delta(const Json& delta) {
    auto reasoning = delta.get_string("reasoning");
    if (!reasoning) reasoning = delta.get_string("reasoning_content");
    reply.reasoning += reasoning.value_or("");
    show(reasoning.value_or(""), true);
    const std::string content = delta.get_string("content").value_or("");
    reply.content += content;
    show(content, false);
    const Json* calls = delta.find("tool_calls");
    if (calls == nullptr || !calls->is_array()) return;
    for (const Json& piece : calls->items()) {
      const auto index =
          static_cast<std::size_t>(std::max<std::int64_t>(0, piece.get_int("index").value_or(0)));
      if (index >= kCallsMax) continue;
      if (reply.calls.size() <= index) reply.calls.resize(index + 1);
      ToolCall& call = reply.calls[index];
      if (auto id = piece.get_string("id")) call.id = *std::move(id);
      const Json* function = piece.find("function");
      if (function == nullptr) continue;
      if (auto name = function->get_string("name"); name && !name->empty()) call.name = *std::move(name);
      call.arguments += function->get_string("arguments").value_or("");
    }
  }

};

class ResponsesCollector final : public Collector {
 public:
  using Collector::Collector;
  void take(const Json& event) override {
    const std::string type = event.get_string("type").value_or("");
    const std::string delta = event.get_string("delta").value_or("");
    if (type == "response.output_text.delta") show(delta, false);
    if (type == "response.reasoning_text.delta" || type == "response.reasoning_summary_text.delta")
      show(delta, true);
    if (type == "error") error = event.get_string("message").value_or("the server failed");
    const Json* response = event.find("response");
    if (response == nullptr) return;
    if (type == "response.completed" || type == "response.incomplete") take_response(*response);
    if (type == "response.failed") {
      const Json* failed = response->find("error");
      error = failed == nullptr ? "the server failed"
                                : failed->get_string("message").value_or("the server failed");
    }
  }

 private:
  void take_response(const Json& response) {
    complete_ = true;
    reply.items = Json::array();
    const Json* output = response.find("output");
    for (const Json& item : output != nullptr && output->is_array() ? output->items() : Json::Array{}) {
      reply.items.push_back(item);
      const std::string type = item.get_string("type").value_or("");
      if (type == "reasoning") reply.reasoning += texts(item);
      if (type == "message") reply.content += texts(item);
      if (type == "function_call" && reply.calls.size() < kCallsMax) {
        reply.calls.push_back({item.get_string("call_id").value_or(""), item.get_string("name").value_or(""),
                               item.get_string("arguments").value_or("")});
      }
    }
    reply.finish = response.get_string("status") == "incomplete" ? "length"
                   : reply.calls.empty()                         ? "stop"
                                                                 : "tool_calls";
    take_usage(response.find("usage"), "input_tokens", "output_tokens");
  }

  static std::string texts(const Json& item) {
    std::string out;
    for (const char* key : {"summary", "content"}) {
      const Json* parts = item.find(key);
      if (parts == nullptr || !parts->is_array()) continue;
      for (const Json& part : parts->items()) out += part.get_string("text").value_or("");
    }
    return out;
  }
};

struct Refusal {
  std::string message, code;
};

Refusal refusal_of(std::string_view body) {
  const auto json = Json::parse(body);
  const Json* error = json ? json->find("error") : nullptr;
  if (error == nullptr) return {std::string(body.substr(0, 300)), ""};
  if (error->is_string()) return {error->as_string(), ""};
  return {error->get_string("message").value_or(""), error->get_string("code").value_or("")};
}

Error error_of(int status, std::string_view server, const Refusal& refusal) {
  const Code code = status == 401 || status == 403                    ? Code::kDenied
                    : status == 404                                   ? Code::kNotFound
                    : status == 429 || status >= 500 || status == 408 ? Code::kUnavailable
                                                                      : Code::kInvalid;
  return {code, fmt::format("the model's server {} answered {}: {}", server, status, refusal.message), {}};
}

// A server that is loading or busy will answer later; one that refuses will not.
bool is_passing(Code code) { return code == Code::kUnavailable; }

}  // namespace

http::Request ModelClient::request_to(std::string_view route, std::string body) const {
  const auto url = http::parse_url(server_);
  std::string path = url ? url->path : "";
  while (path.ends_with('/')) path.pop_back();
  if (!path.ends_with("/v1")) path += "/v1";
  http::Request request{
      .method = body.empty() ? "GET" : "POST", .target = path + std::string(route), .body = std::move(body)};
  request.headers.set("content-type", "application/json");
  if (!key_.empty()) request.headers.set("authorization", "Bearer " + key_);
  return request;
}

Result<ModelReply> ModelClient::try_once(const Json& body, std::int64_t time_ms, const OnPiece& on_piece,
                                         std::int64_t& retry_after_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(time_ms);
  std::unique_ptr<Collector> collector;
  if (api_ == Api::kChat) {
    collector = std::make_unique<ChatCollector>(on_piece);
  } else {
    collector = std::make_unique<ResponsesCollector>(on_piece);
  }
  http::SseParser events([&](std::string_view, std::string_view data) {
    if (data == "[DONE]") return;
    if (const auto event = Json::parse(data)) collector->take(*event);
  });
  int status = 0;
  std::string refused;
  std::size_t bytes = 0;
  bool late = false;
  const http::ClientOptions options{.timeout_ms =
                                        static_cast<int>(std::clamp<std::int64_t>(time_ms, 1, 3'600'000))};
  const auto sent = client_.stream(
      server_, request_to(api_ == Api::kChat ? "/chat/completions" : "/responses", body.dump()), options,
      [&](const http::Response& head) {
        status = head.status;
        if (const auto seconds = parse_int(head.headers.get("retry-after"))) retry_after_ms = *seconds * 1000;
        return true;
      },
      [&](std::string_view piece) {
        late = Clock::now() > deadline;
        bytes += piece.size();
        if (late || bytes > kReplyBytesMax) return false;
        if (status == 200) {
          events.feed(piece);
        } else {
          refused += piece.substr(0, kErrorBytesMax - std::min(kErrorBytesMax, refused.size()));
        }
        return true;
      });
  if (late) return fail(Code::kTimeout, "the model did not answer within {} ms", time_ms);
  if (bytes > kReplyBytesMax)
    return fail(Code::kInvalid, "the model's answer is longer than {} bytes", kReplyBytesMax);
  if (!sent) return std::unexpected(sent.error());
  if (status != 200) {
    const Refusal refusal = refusal_of(refused);
    if (refusal.code == "context_length_exceeded") return ModelReply{.finish = "context"};
    return std::unexpected(error_of(status, server_, refusal));
  }
  if (!collector->error.empty())
    return fail(Code::kUnavailable, "the model's server failed: {}", collector->error);
  if (!collector->complete()) return fail(Code::kUnavailable, "the model's server {} broke off", server_);
  return std::move(collector->reply);
}

Result<ModelReply> ModelClient::ask(const Json& body, std::int64_t time_ms, const OnPiece& on_piece) {
  const auto begin = Clock::now();
  const auto left = [&] {
    return time_ms - std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();
  };
  std::int64_t backoff = kBackoffMs;
  for (;;) {
    std::int64_t wait = backoff;
    auto reply = try_once(body, std::max<std::int64_t>(1, left()), on_piece, wait);
    if (reply) return reply;
    // A time-out long before the time is over is the connection's.
    const bool unconnected = reply.error().code == Code::kTimeout && left() > kBackoffMs;
    if (!unconnected && !is_passing(reply.error().code)) return reply;
    wait = std::clamp<std::int64_t>(wait, 1, kBackoffMaxMs);
    if (left() <= wait) return reply;
    for (; wait > 0 && !cancelled_; wait -= kNapMs) {
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min(wait, kNapMs)));
    }
    if (cancelled_) return fail(Code::kCancelled, "stopped");
    backoff = std::min(backoff * 2, kBackoffMaxMs);
  }
}

Result<std::string> ModelClient::choose_model() {
  CAPSTAN_TRY(const http::Response answer, client_.request(server_, request_to("/models", ""), {}));
  if (answer.status != 200) return std::unexpected(error_of(answer.status, server_, refusal_of(answer.body)));
  CAPSTAN_TRY(const Json json, Json::parse(answer.body));
  const Json* list = json.find("data");
  std::string first;
  for (const Json& model : list != nullptr && list->is_array() ? list->items() : Json::Array{}) {
    const std::string id = model.get_string("id").value_or("");
    if (id == "abacus") return id;
    if (first.empty()) first = id;
  }
  if (first.empty()) return fail(Code::kNotFound, "{} serves no model", server_);
  return first;
}

}  // namespace capstan::agents::loop
