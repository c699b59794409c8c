// Goal: the gateway between real sockets: clients on one side, scripted replicas on the other.
#include "gateway/gateway.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <thread>

#include "gateway/relay.h"
#include "http/client.h"

namespace capstan::gateway {
namespace {

using namespace std::chrono_literals;

class Directory final : public ReplicaDirectory {
 public:
  std::vector<Replica> list;
  std::vector<std::pair<std::string, std::string>> absent;
  std::string starts;  // the service that starts replicas of any model
  mutable std::mutex mutex;  // where `list` changes under a request
  std::vector<Replica> replicas() const override {
    const std::scoped_lock lock(mutex);
    return list;
  }
  std::string starter(const std::string&) const override { return starts; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return absent; }
};

// So many that one after another does not come to it while earlier ones are being put away.
constexpr int kRequestsMax = 12;

// Whose replicas speak HTTP/1.1, or HTTP/2.
class GatewayTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    upstream_.add(
        "POST", "/v1/chat/completions",
        [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
          ++served_;
          last_id_ = request.headers.get("x-request-id");
          if (!Json::parse(request.body)->get_bool("stream").value_or(false)) {
            return writer->respond(http::Response::json(200, Json::object({{"echo", request.body}})));
          }
          writer->start(200, {{"content-type", "text/event-stream"}});
          int sent = 0;
          while (sent < 1000 && writer->write(http::sse_event(std::to_string(sent)))) {
            ++sent;
            std::this_thread::sleep_for(1ms);
          }
          streamed_ = sent;
          writer->finish();
        });
    replica_ = std::move(http::Server::start({}, upstream_.handler()).value());
    directory_.list = {{"a-1", "abacus", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
    directory_.list[0].http2 = GetParam();
    gateway_.mount(router_);
    server_ = std::move(http::Server::start({}, router_.handler()).value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }

  http::Response post(std::string body, std::string target = "/v1/chat/completions") {
    return client_.request(url_, {.method = "POST", .target = std::move(target), .body = std::move(body)}, {})
        .value();
  }
  // The value of one sample in the metrics, e.g. `name{a="b"}`; waits, since a request is counted after its
  // answer.
  bool metric_is(const std::string& sample, const std::string& value) {
    std::string text;
    for (int i = 0; i < 300; ++i) {
      text = prometheus::TextSerializer().Serialize(registry_->Collect());
      if (text.find(sample + " " + value + "\n") != std::string::npos) return true;
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << text;
    return false;
  }
  // A second replica of the same model, whose chat/completions is `handler`.
  void add_replica(http::Handler handler) {
    http::Router router;
    router.add("POST", "/v1/chat/completions", std::move(handler));
    others_.push_back(std::move(http::Server::start({}, router.handler()).value()));
    directory_.list.push_back({fmt::format("other-{}", others_.size()), "abacus",
                               fmt::format("http://127.0.0.1:{}", others_.back()->port()), true});
    directory_.list.back().http2 = GetParam();
  }
  static Json error_of(const http::Response& response) { return *Json::parse(response.body)->find("error"); }

  Directory directory_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  Gateway gateway_{directory_, registry_, {.requests_max = kRequestsMax, .lone_over_http1 = false}};
  http::Router upstream_;
  http::Router router_;
  std::unique_ptr<http::Server> replica_;
  std::vector<std::unique_ptr<http::Server>> others_;
  std::unique_ptr<http::Server> server_;
  std::string url_;
  http::Client client_;
  std::atomic<int> served_{0};
  std::atomic<int> streamed_{-1};
  std::string last_id_;
};

TEST_P(GatewayTest, RelaysBytesUnchangedAndNamesTheRequest) {
  const std::string body = R"({"model": "abacus",  "messages": []})";
  for (const char* target : {"/v1/chat/completions", "/openai/v1/chat/completions"}) {
    const auto answer = post(body, target);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(Json::parse(answer.body)->get_string("echo"), body);
    EXPECT_EQ(answer.headers.get("x-request-id"), last_id_);
  }
}

TEST_P(GatewayTest, ModelsAreListed) {
  const auto answer = client_.request(url_, {.target = "/v1/models"}, {});
  EXPECT_EQ(
      answer->body,
      R"({"object":"list","data":[{"id":"abacus","object":"model","created":0,"owned_by":"capstan"}]})");
  EXPECT_EQ(client_.request(url_, {.target = "/v1/models/abacus"}, {})->status, 200);
  EXPECT_EQ(client_.request(url_, {.target = "/v1/models/org/other"}, {})->status, 404);
}

// Goal: a request for a service without replicas waits for the first one, which the autoscaler sees it wait for.
TEST_P(GatewayTest, TheFirstRequestWaitsForAReplicaFromZero) {
  auto replica = directory_.list.front();
  replica.service = "calculator";
  directory_.list.clear();
  directory_.starts = "calculator";
  std::optional<http::Response> answer;
  std::thread client([&] { answer = post(R"({"model":"abacus"})"); });
  const auto waiting = [&] { return gateway_.watch().load("calculator", steady_now_ms()).waiting; };
  for (int i = 0; i < 500 && waiting() == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(waiting(), 1);
  EXPECT_EQ(served_, 0);
  {
    const std::scoped_lock lock(directory_.mutex);
    directory_.list.push_back(replica);
  }
  client.join();
  EXPECT_EQ(answer->status, 200);
  for (int i = 0; i < 500 && gateway_.watch().load("calculator", steady_now_ms()).under_way != 0; ++i)
    std::this_thread::sleep_for(10ms);
  const auto load = gateway_.watch().load("calculator", steady_now_ms());
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(load.under_way, 0);
  EXPECT_EQ(load.requests, 1);
}

// Goal: two services of one model share its requests by weight, and one without a ready replica is passed over.
TEST_P(GatewayTest, ServicesOfOneModelShareItByWeight) {
  std::atomic<int> canary{0};
  add_replica([&](const http::Request&, const http::ResponseWriterPtr& writer) {
    ++canary;
    writer->respond(http::Response::json(200, Json::object({})));
  });
  directory_.list[0].service = "stable";
  directory_.list[0].weight = 300;
  directory_.list[1].service = "canary";
  for (int i = 0; i < 200; ++i) EXPECT_EQ(post(R"({"model":"abacus"})").status, 200);
  EXPECT_NEAR(canary, 50, 25);
  directory_.list[1].ready = false;
  const int before = canary;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(post(R"({"model":"abacus"})").status, 200);
  EXPECT_EQ(canary, before);
}

TEST_P(GatewayTest, WrongRequestsGetOpenAiErrors) {
  EXPECT_EQ(post("{").status, 400);
  EXPECT_EQ(error_of(post("{}")).get_string("param"), "model");
  const auto answer = post(R"({"model":"abakus"})");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(error_of(answer).get_string("message"),
            "the model 'abakus' does not exist; did you mean 'abacus'?");
  EXPECT_EQ(error_of(answer).get_string("code"), "model_not_found");
}

TEST_P(GatewayTest, ACompressedBodyIsRefusedAsSuch) {
  for (const char* target : {"/v1/chat/completions", "/openai/v1/completions"}) {
    const auto answer = client_.request(
        url_, {.method = "POST", .target = target, .headers = {{"content-encoding", "gzip"}}, .body = "\x1f\x8b"}, {});
    EXPECT_EQ(answer->status, 415);
    EXPECT_EQ(error_of(*answer).get_string("code"), "unsupported_content_encoding");
    EXPECT_FALSE(answer->headers.get("x-request-id").empty());
  }
}

TEST_P(GatewayTest, NotReadyIsRetryableAndSaysWhy) {
  directory_.list[0].ready = false;
  auto answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get("x-should-retry"), "true");
  directory_.list.clear();
  directory_.absent = {{"abacus", "waits for 2 cpus"}};
  answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(error_of(answer).get_string("message"), "model 'abacus' is not ready: waits for 2 cpus");
}

TEST_P(GatewayTest, ADeadReplicaIsPassedOver) {
  directory_.list.push_back({"dead", "abacus", "http://127.0.0.1:1", true});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(post(fmt::format(R"({{"model":"abacus","n":{}}})", i)).status, 200);
  EXPECT_EQ(served_, 20);
}

TEST_P(GatewayTest, AClientThatLeavesEndsTheReplicasWork) {
  const http::Request request{
      .method = "POST", .target = "/v1/chat/completions", .body = R"({"model":"abacus","stream":true})"};
  int pieces = 0;
  const auto result = client_.stream(
      url_, request, {}, [](const http::Response&) { return true; },
      [&](std::string_view) { return ++pieces < 5; });
  EXPECT_EQ(result.error().code, Code::kCancelled);
  for (int i = 0; i < 300 && streamed_ < 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_GE(streamed_, 0);
  EXPECT_LT(streamed_, 1000);
  EXPECT_TRUE(metric_is(R"(capstan_gateway_requests_total{model="abacus",status="499"})", "1"));
}

TEST_P(GatewayTest, ABusyReplicaIsPassedOverAndTheLastOnesRefusalIsTold) {
  std::atomic<int> refused{0};
  for (const int status : {503, 429}) {
    add_replica([status, &refused](const http::Request&, const http::ResponseWriterPtr& writer) {
      ++refused;
      writer->respond(
          http::Response::json(status, Json::object({{"error", Json::object({{"message", "full"}})}})));
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(post(fmt::format(R"({{"model":"abacus","n":{}}})", i)).status, 200);
  EXPECT_EQ(served_, 20);
  EXPECT_GT(refused, 0);
  directory_.list = {directory_.list.back()};
  const auto answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(error_of(answer).get_string("message"), "full");
}

// Goal: a stream that breaks off must not look like a short answer. Method: a replica whose connection breaks
// inside an event.
TEST_P(GatewayTest, AStreamThatBreaksOffEndsWithAnError) {
  directory_.list.clear();
  std::atomic<bool> leave{false};
  add_replica([&leave](const http::Request&, const http::ResponseWriterPtr& writer) {
    writer->start(200, {{"content-type", "text/event-stream"}});
    writer->write("data: {\"n\":1}\n\ndata: {\"n");
    while (!leave && !writer->client_gone()) std::this_thread::sleep_for(1ms);
  });
  std::vector<std::string> events;
  http::SseParser parser([&](std::string_view, std::string_view data) { events.emplace_back(data); });
  std::thread breaker;
  const http::Request request{
      .method = "POST", .target = "/v1/chat/completions", .body = R"({"model":"abacus","stream":true})"};
  const auto result = client_.stream(
      url_, request, {}, [](const http::Response&) { return true; },
      [&](std::string_view piece) {
        parser.feed(piece);
        if (!breaker.joinable()) breaker = std::thread([&] { others_[0]->stop(0); });
        return true;
      });
  breaker.join();
  EXPECT_TRUE(result);
  ASSERT_EQ(events.size(), 2u);  // half an event is not passed on
  EXPECT_EQ(events[0], R"({"n":1})");
  EXPECT_EQ(Json::parse(events[1])->find("error")->get_string("code"), "replica_lost");
}

TEST_P(GatewayTest, TokensAreCountedFromWhatReplicasReport) {
  directory_.list.clear();
  add_replica([](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const Json usage = Json::object({{"prompt_tokens", 5}, {"completion_tokens", 7}});
    if (!Json::parse(request.body)->get_bool("stream").value_or(false))
      return writer->respond(http::Response::json(200, Json::object({{"usage", usage}})));
    writer->start(200, {{"content-type", "text/event-stream"}});
    writer->write(http::sse_event(R"({"usage":null})"));
    writer->write(http::sse_event(Json::object({{"choices", Json::array()}, {"usage", usage}}).dump()));
    writer->write(http::sse_event("[DONE]"));
    writer->finish();
  });
  EXPECT_EQ(post(R"({"model":"abacus"})").status, 200);
  EXPECT_EQ(post(R"({"model":"abacus","stream":true})").status, 200);
  EXPECT_TRUE(metric_is(R"(capstan_gateway_tokens_total{kind="completion",model="abacus"})", "14"));
  EXPECT_TRUE(metric_is(R"(capstan_gateway_tokens_total{kind="prompt",model="abacus"})", "10"));
}

TEST_P(GatewayTest, MoreThanTheLimitIsRefusedAndRetryable) {
  directory_.list.clear();
  std::atomic<int> held{0};
  add_replica([&held](const http::Request&, const http::ResponseWriterPtr& writer) {
    ++held;
    while (!writer->client_gone()) std::this_thread::sleep_for(1ms);
  });
  http::Client leaving;
  std::vector<std::thread> clients;
  for (int i = 0; i < kRequestsMax; ++i) {
    clients.emplace_back([&] {
      (void)leaving.request(
          url_, {.method = "POST", .target = "/v1/chat/completions", .body = R"({"model":"abacus"})"}, {});
    });
  }
  for (int i = 0; i < 500 && held < kRequestsMax; ++i) std::this_thread::sleep_for(10ms);
  const auto answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(error_of(answer).get_string("code"), "overloaded");
  EXPECT_EQ(answer.headers.get("x-should-retry"), "true");
  leaving.cancel();
  for (auto& client : clients) client.join();
}

// Goal: a stream's tokens are counted, and the client sees what it asked for. Method: a replica that reports
// usage only if it is asked to, as OpenAI has it.
TEST_P(GatewayTest, TheGatewayAsksForUsageAndTakesItOutAgain) {
  directory_.list.clear();
  add_replica([](const http::Request& request, const http::ResponseWriterPtr& writer) {
    EXPECT_EQ(Json::parse(request.body)->find("stream_options")->get_bool("include_usage"), true);
    writer->start(200, {{"content-type", "text/event-stream"}});
    writer->write(http::sse_event(R"({"choices":[{"delta":{"content":"a"}}],"usage":null})"));
    writer->write(http::sse_event(
        R"({"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}})"));
    writer->write(http::sse_event("[DONE]"));
    writer->finish();
  });
  EXPECT_EQ(post(R"({"model":"abacus","stream":true})").body,
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n");
  const auto asked = post(R"({"model":"abacus","stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_TRUE(asked.body.contains(R"("usage":null)"));
  EXPECT_TRUE(asked.body.contains(R"("cached_tokens":4)"));
  EXPECT_TRUE(metric_is(R"(capstan_gateway_tokens_total{kind="cached",model="abacus"})", "8"));
}

// Admission that lets one request in at a time and tells what was settled.
class OneAtATime final : public Admission {
 public:
  std::mutex mutex;
  bool taken = false;
  std::function<void(Verdict)> next;
  std::vector<Usage> settled;
  std::vector<int> statuses;

  class Ticket final : public Permit {
   public:
    explicit Ticket(OneAtATime& all) : all_(all) {}
    void add_headers(http::Headers& headers) override { headers.set("x-ratelimit-remaining-requests", "0"); }
    void settle(const Settlement& settlement) override {
      std::unique_lock lock(all_.mutex);
      all_.settled.push_back(settlement.usage);
      all_.statuses.push_back(settlement.status);
      all_.taken = false;
      auto later = std::exchange(all_.next, nullptr);
      lock.unlock();
      if (later) later(std::make_unique<Ticket>(all_));
    }

   private:
    OneAtATime& all_;
  };
  class Place final : public Waiting {};

  Decision admit(const CallerPtr& caller, const CostEstimate& cost, std::function<void(Verdict)> later) override {
    EXPECT_GE(cost.prompt_tokens, 1);
    if (caller->key_id == "poor")
      return Verdict(std::unexpected(ApiError{.status = 429, .message = "poor", .code = "insufficient_quota"}));
    const std::scoped_lock lock(mutex);
    if (!std::exchange(taken, true)) return Verdict(std::make_unique<Ticket>(*this));
    next = std::move(later);
    return std::make_unique<Place>();
  }
};

class KeyIsId final : public Authenticator {
 public:
  std::expected<CallerPtr, ApiError> authenticate(const http::Request& request) override {
    const std::string key = request.headers.get("authorization");
    if (key.empty()) return std::unexpected(ApiError{.status = 401, .message = "no key", .code = "invalid_api_key"});
    return std::make_shared<Caller>(Caller{.key_id = key});
  }
};

class GatewayAdmissionTest : public GatewayTest {
 protected:
  void SetUp() override {
    gateway_.set_authenticator(std::make_unique<KeyIsId>());
    auto admission = std::make_unique<OneAtATime>();
    admission_ = admission.get();
    gateway_.set_admission(std::move(admission));
    GatewayTest::SetUp();
  }
  http::Response ask(std::string key, std::string body) {
    http::Request request{.method = "POST", .target = "/v1/chat/completions", .body = std::move(body)};
    if (!key.empty()) request.headers.set("authorization", std::move(key));
    return client_.request(url_, request, {}).value();
  }
  OneAtATime* admission_ = nullptr;
};

TEST_P(GatewayAdmissionTest, WhoHasNoKeyOrNoMoneyIsRefusedInTheApisShape) {
  EXPECT_EQ(ask("", R"({"model":"abacus"})").status, 401);
  EXPECT_EQ(client_.request(url_, {.target = "/v1/models"}, {})->status, 401);
  const auto answer = ask("poor", R"({"model":"abacus"})");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(error_of(answer).get_string("code"), "insufficient_quota");
  EXPECT_EQ(served_, 0);
}

TEST_P(GatewayAdmissionTest, WhoMustWaitIsServedLaterAndEverybodyIsSettled) {
  std::atomic<bool> release{false};
  directory_.list.clear();
  add_replica([&release](const http::Request&, const http::ResponseWriterPtr& writer) {
    while (!release) std::this_thread::sleep_for(1ms);
    writer->respond(http::Response::json(
        200, Json::object({{"usage", Json::object({{"prompt_tokens", 3}, {"completion_tokens", 2}})}})));
  });
  std::thread first([&] { EXPECT_EQ(ask("a", R"({"model":"abacus"})").status, 200); });
  std::thread second([&] {
    const auto answer = ask("b", R"({"model":"abacus"})");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.headers.get("x-ratelimit-remaining-requests"), "0");
  });
  for (int i = 0; i < 500; ++i) {
    std::this_thread::sleep_for(5ms);
    const std::scoped_lock lock(admission_->mutex);
    if (admission_->next) break;
  }
  release = true;
  first.join();
  second.join();
  for (int i = 0; i < 500 && admission_->settled.size() < 2; ++i) std::this_thread::sleep_for(5ms);
  const std::scoped_lock lock(admission_->mutex);
  ASSERT_EQ(admission_->settled.size(), 2u);
  EXPECT_EQ(admission_->settled[1].completion_tokens, 2);
  EXPECT_TRUE(admission_->settled[1].exact);
}

TEST_P(GatewayAdmissionTest, WhoLeavesIsSettledWithWhatCame) {
  const http::Request request{.method = "POST",
                              .target = "/v1/chat/completions",
                              .headers = {{"authorization", "a"}},
                              .body = R"({"model":"abacus","stream":true})"};
  int pieces = 0;
  (void)client_.stream(
      url_, request, {}, [](const http::Response&) { return true; },
      [&](std::string_view) { return ++pieces < 5; });
  for (int i = 0; i < 500; ++i) {
    std::this_thread::sleep_for(5ms);
    const std::scoped_lock lock(admission_->mutex);
    if (!admission_->settled.empty()) break;
  }
  const std::scoped_lock lock(admission_->mutex);
  ASSERT_EQ(admission_->settled.size(), 1u);
  EXPECT_EQ(admission_->statuses[0], 499);
  EXPECT_GE(admission_->settled[0].completion_tokens, 4);
  EXPECT_FALSE(admission_->settled[0].exact);
}

// Goal: what batches need: a request from inside goes the same way as one from outside.
TEST_P(GatewayTest, ARequestFromInsideIsServedAndUnknownPathsAreTold) {
  class Keep final : public http::ResponseWriter {
   public:
    void respond(http::Response response) override { answer.set_value(std::move(response)); }
    void start(int, http::Headers) override {}
    bool write(std::string_view) override { return true; }
    void finish() override {}
    bool client_gone() const override { return false; }
    void on_client_gone(std::function<void()>) override {}
    std::promise<http::Response> answer;
  };
  const auto writer = std::make_shared<Keep>();
  http::Request request{.method = "POST", .target = "/v1/chat/completions", .body = R"({"model":"abacus"})"};
  ASSERT_TRUE(gateway_.perform(request, std::make_shared<Caller>(), writer));
  EXPECT_EQ(writer->answer.get_future().get().status, 200);
  request.target = "/v1/nothing";
  EXPECT_EQ(gateway_.perform(request, std::make_shared<Caller>(), writer).error().code, Code::kNotFound);
}

TEST(FindUsageTest, TheLastReportCountsAndTextDoesNot) {
  EXPECT_FALSE(find_usage(R"({"text":"\"usage\":{\"prompt_tokens\":9}","usage":null})").exact);
  EXPECT_FALSE(find_usage(R"({"content":"usage","usage":{"other":1}})").exact);
  EXPECT_EQ(find_usage(R"({"usage": {"prompt_tokens":1,"details":{"a":"}"}},"b":1})").prompt_tokens, 1);
  const Usage usage = find_usage(
      R"({"usage":{"prompt_tokens":9,"completion_tokens":8,"completion_tokens_details":{"reasoning_tokens":7}}})");
  EXPECT_EQ(usage.reasoning_tokens, 7);
}

std::string version(const testing::TestParamInfo<bool>& info) { return info.param ? "Http2" : "Http1"; }
INSTANTIATE_TEST_SUITE_P(OfBothVersions, GatewayTest, testing::Bool(), version);
INSTANTIATE_TEST_SUITE_P(OfBothVersions, GatewayAdmissionTest, testing::Bool(), version);

}  // namespace
}  // namespace capstan::gateway
