// For tests: the control API over real sockets, with the real controller behind it.
#pragma once

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <mutex>

#include "api/api.h"
#include "controller/controller.h"

namespace capstan::api {

// The controller without a journal: every event counts as durable at once.
class DirectBackend final : public Backend {
 public:
  Result<Json> submit(Command command) override { return decide(std::move(command)); }
  Result<protocol::SyncAnswer> sync(protocol::SyncRequest request) override {
    if (request.incarnation != incarnation_) {
      incarnation_ = request.incarnation;
      (void)decide(controller::JoinHost{request.worker, request.incarnation, request.build, request.logs_url,
                                        request.resources, request.capabilities});
    }
    if (!request.reports.empty()) (void)decide(controller::Reports{request.worker, request.reports, {}});
    protocol::SyncAnswer answer;
    answer.epoch = 1;
    if (!request.reports.empty()) answer.reports_acked = request.reports.back().seq;
    return answer;
  }
  Result<void> read(std::function<void(const controller::State&)> callback) override {
    const std::scoped_lock lock(mutex_);
    callback(controller_.state());
    return {};
  }
  Result<std::vector<Json>> events(std::int64_t since, std::int64_t limit) override {
    const std::scoped_lock lock(mutex_);
    std::vector<Json> out;
    for (const Json& event : events_) {
      if (event.get_int("seq").value_or(0) > since && static_cast<std::int64_t>(out.size()) < limit)
        out.push_back(event);
    }
    return out;
  }
  bool wait_for_event(std::int64_t, int) override { return !shut_down; }
  Result<void> ready() override { return {}; }
  void shutdown(bool) override { shut_down = true; }

  std::atomic<bool> shut_down{false};

 private:
  template <class Command>
  Result<Json> decide(Command command) {
    const std::scoped_lock lock(mutex_);
    auto outcome = controller_.apply({++now_ms_, std::move(command)});
    for (Json& event : outcome.events) {
      event["seq"] = static_cast<std::int64_t>(events_.size()) + 1;
      events_.push_back(std::move(event));
    }
    return outcome.answer;
  }
  std::mutex mutex_;
  controller::Controller controller_;
  std::vector<Json> events_;
  std::int64_t now_ms_ = 1000;
  std::string incarnation_;
};

class ApiTest : public testing::Test {
 protected:
  void SetUp() override {
    api_.mount(router_);
    server_ = std::move(http::Server::start({}, router_.handler()).value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }
  void TearDown() override { api_.cancel(); }

  http::Response send(std::string method, std::string target, std::string body = "",
                      std::string token = "control") {
    http::Request request{.method = std::move(method), .target = std::move(target), .body = std::move(body)};
    if (!token.empty()) request.headers.set("authorization", "Bearer " + token);
    return client_.request(url_, request, {}).value();
  }
  static std::string message_of(const http::Response& response) {
    const auto body = Json::parse(response.body);
    const Json* error = body ? body->find("error") : nullptr;
    return error != nullptr ? error->get_string("message").value_or("") : "";
  }

  DirectBackend backend_;
  Api api_{backend_, {"control", "worker"}, std::make_shared<prometheus::Registry>()};
  http::Router router_;
  std::unique_ptr<http::Server> server_;
  std::string url_;
  http::Client client_;
};

}  // namespace capstan::api
