#include "gateway/openai/background.h"

#include <algorithm>
#include <future>

#include "base/steady_time.h"
#include "gateway/openai/endpoints.h"
#include "gateway/openai/responses_exchange.h"

namespace capstan::gateway::openai {
namespace {

// The head of a stream, without more: with_id's for a whole answer.
http::Headers head_for(const http::Request& request) {
  return with_id(request, http::Response{}).headers;
}

}  // namespace

BackgroundResponses::BackgroundResponses(Gateway& gateway, ResponsesState& state) : gateway_(gateway), state_(state) {
  gateway.at_stop([this] { leave_all(); });
}

bool BackgroundResponses::takes(const http::Request& request) {
  if (!request.body.contains("\"background\"")) return false;
  const auto body = Json::parse(request.body);
  return body && body->get_bool("background").value_or(false);
}

std::expected<void, ApiError> BackgroundResponses::begin(const http::Request& request, const CallerPtr& caller,
                                                         const http::ResponseWriterPtr& writer) {
  const std::string owner = owner_of(*caller);
  auto prepared = state_.prepare(request.body, owner);
  if (!prepared) return std::unexpected(prepared.error());
  const ResponsesCall call = prepared->call;
  return start(request, call, caller, writer, [&](ResponsesAnswer answer, const http::ResponseWriterPtr& run) {
    auto exchange = std::make_unique<ResponsesExchange>(state_, owner, *std::move(prepared), std::move(answer));
    return gateway_.perform(std::move(exchange),
                            {.method = "POST", .target = "/v1/responses", .headers = trace_of(request)}, caller, run);
  });
}

std::expected<void, ApiError> BackgroundResponses::start(const http::Request& request, ResponsesCall call,
                                                         const CallerPtr& caller, const http::ResponseWriterPtr& writer,
                                                         const Work& work) {
  http::EventLoop* loop = gateway_.loop();
  ResponsesAnswer answer = state_.answer(call);
  const auto queued = answer.queue();
  Json response = answer.response();
  const std::string id = *response.get_string("id"), owner = owner_of(*caller);
  const auto run = std::make_shared<BackgroundRun>(
      answer, [this, call, owner](const Json& ended) { state_.keep(call, owner, ended); }, call.stream);
  {
    const std::scoped_lock lock(mutex_);
    forget_ended();
    const auto under_way = std::ranges::count_if(runs_, [](const auto& entry) { return entry.second->ended_ms() == 0; });
    if (loop == nullptr || std::cmp_greater_equal(under_way, kBackgroundMax))
      return std::unexpected(ApiError{
          .status = 429,
          .message = fmt::format("{} responses are being made in the background, which is the limit; try again later", under_way),
          .type = "rate_limit_error",
          .code = "rate_limit_exceeded"});
    runs_[id] = run;
  }
  state_.keep(call, owner, response);
  // On the loop, in this order: what is queued, who follows, the work.
  const bool streamed = call.stream;
  loop->post([run, queued, streamed, writer, head = head_for(request)] {
    run->tell(queued);
    if (streamed) run->follow(-1, head, writer);
  });
  if (const auto begun = work(std::move(answer), run); !begun)
    loop->post([run, why = begun.error().message] {
      run->respond(to_response({.status = 503, .message = why, .type = "server_error"}));
    });
  response["status"] = "queued";
  if (!streamed) writer->respond(with_id(request, http::Response::json(200, response)));
  return {};
}

// Those that ended long ago, and the oldest of the others while all have too many bytes.
void BackgroundResponses::forget_ended() {
  std::size_t bytes = 0;
  std::multimap<std::int64_t, std::string> ended;
  std::erase_if(runs_, [&](const auto& entry) {
    const std::int64_t ended_ms = entry.second->ended_ms();
    if (ended_ms == 0) return false;
    if (ended_ms + kEventsKeptMs < steady_now_ms()) return true;
    ended.emplace(ended_ms, entry.first);
    bytes += entry.second->bytes();
    return false;
  });
  for (const auto& [ended_ms, id] : ended) {
    if (bytes <= kEndedBytesMax) break;
    bytes -= runs_.at(id)->bytes();
    runs_.erase(id);
  }
}

std::shared_ptr<BackgroundRun> BackgroundResponses::find(const std::string& id) const {
  const std::scoped_lock lock(mutex_);
  const auto found = runs_.find(id);
  return found == runs_.end() ? nullptr : found->second;
}

std::expected<void, ApiError> BackgroundResponses::follow(const std::string& owner, const std::string& id, std::int64_t after,
                                                          const http::Request& request, const http::ResponseWriterPtr& writer) {
  const auto stored = state_.store().find(owner, id);
  if (!stored) return std::unexpected(ApiError{.status = 404, .message = stored.error().message});
  const auto run = find(id);
  http::EventLoop* loop = gateway_.loop();
  const ApiError none{.message = "the events of this response are not kept: they are of one that was made with 'background' and "
                                 "'stream', for five minutes after its end; fetch it without 'stream'",
                      .param = "stream",
                      .code = "invalid_value"};
  if (!run || !run->is_streamed() || loop == nullptr) return std::unexpected(none);
  loop->post([run, after, writer, head = head_for(request), none, request] {
    if (run->follow(after, head, writer)) return;
    ApiError refusal = none;
    if (after >= 0)
      refusal = {.message = fmt::format("there is no event {} yet, or it is not kept any more", after),
                 .param = "starting_after",
                 .code = "invalid_value"};
    writer->respond(with_id(request, to_response(refusal)));
  });
  return {};
}

http::Response BackgroundResponses::cancel(const std::string& owner, const std::string& id) {
  auto stored = state_.store().find(owner, id);
  if (!stored) return to_response({.status = 404, .message = stored.error().message});
  if (!stored->response.get_bool("background").value_or(false))
    return to_response({.status = 400, .message = "only a response that was made with 'background': true can be cancelled"});
  http::EventLoop* loop = gateway_.loop();
  if (const auto run = find(id); run && loop != nullptr) {
    std::promise<void> done;
    loop->post([&] {
      run->cancel();
      done.set_value();
    });
    done.get_future().wait();
    stored = state_.store().find(owner, id);
    if (!stored) return to_response({.status = 404, .message = stored.error().message});
  }
  return http::Response::json(200, stored->response);
}

// What is under way is found as interrupted by the next process.
void BackgroundResponses::leave_all() {
  const std::scoped_lock lock(mutex_);
  for (const auto& [id, run] : runs_) run->leave();
}

}  // namespace capstan::gateway::openai
