#include "gateway/openai/local_call.h"

#include <condition_variable>
#include <functional>
#include <mutex>

#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

class LocalCall::Catcher final : public http::ResponseWriter {
 public:
  void respond(http::Response response) override { end(std::move(response)); }
  void start(int status, http::Headers headers) override {
    const std::scoped_lock lock(mutex_);
    streamed_ = {status, std::move(headers), {}};
  }
  bool write(std::string_view piece) override {
    const std::scoped_lock lock(mutex_);
    streamed_.body += piece;
    return !cancelled_;
  }
  void finish() override { end(std::move(streamed_)); }
  bool client_gone() const override {
    const std::scoped_lock lock(mutex_);
    return cancelled_;
  }
  void on_client_gone(std::function<void()> callback) override {
    {
      const std::scoped_lock lock(mutex_);
      if (!cancelled_) {
        on_gone_ = std::move(callback);
        return;
      }
    }
    callback();
  }
  void cancel() {
    std::function<void()> callback;
    http::EventLoop* loop = nullptr;
    {
      const std::scoped_lock lock(mutex_);
      if (cancelled_ || answer_) return;
      cancelled_ = true;
      callback = std::move(on_gone_);
      if (gateway_ != nullptr) loop = gateway_->loop();
    }
    if (callback && loop != nullptr) loop->post(std::move(callback));  // without a loop there is no work any more
    changed_.notify_all();
  }
  void belongs_to(const Gateway& gateway) {
    const std::scoped_lock lock(mutex_);
    gateway_ = &gateway;
  }
  http::Response wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return answer_.has_value() || cancelled_; });
    if (answer_) return *std::move(answer_);
    return to_response({.status = 499, .message = "cancelled", .code = "cancelled"});
  }

 private:
  void end(http::Response response) {
    const std::scoped_lock lock(mutex_);
    answer_ = std::move(response);
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<http::Response> answer_;
  http::Response streamed_;
  bool cancelled_ = false;
  const Gateway* gateway_ = nullptr;
  std::function<void()> on_gone_;
};

LocalCall::LocalCall() : catcher_(std::make_shared<Catcher>()) {}

http::Response LocalCall::await(Gateway& gateway,
                                const std::function<Result<void>(const http::ResponseWriterPtr&)>& begin) {
  catcher_->belongs_to(gateway);
  if (catcher_->client_gone()) return catcher_->wait();
  if (const auto begun = begin(catcher_); !begun) {
    const bool unknown = begun.error().code == Code::kNotFound;
    return to_response(
        {.status = unknown ? 404 : 503, .message = begun.error().message, .code = unknown ? "unknown_url" : ""});
  }
  return catcher_->wait();
}

http::Response LocalCall::perform(Gateway& gateway, const CallerPtr& caller, const std::string& target,
                                  std::string body) {
  http::Request request{.method = "POST",
                        .target = target,
                        .headers = {{"content-type", "application/json"}},
                        .body = std::move(body)};
  return await(gateway, [&](const http::ResponseWriterPtr& writer) {
    return gateway.perform(std::move(request), caller, writer);
  });
}

void LocalCall::cancel() { catcher_->cancel(); }

}  // namespace capstan::gateway::openai
