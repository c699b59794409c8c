// The life of an answer: start -> tokens of every choice -> each choice ends -> complete; or refuse/abandon
// at any time.
#include "engine/server/answer.h"

#include <algorithm>

#include "base/build_id.h"
#include "base/file.h"
#include "base/log.h"
#include "base/prng.h"

namespace capstan::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

// The tier that the answer is made with: what was asked for may have been more than the caller may have.
std::string_view tier_of(int priority) { return priority > 0 ? "priority" : priority < 0 ? "flex" : "default"; }

// A seed for a request that gave none: it must differ between requests, not be secret.
std::uint64_t fresh_seed() { return std::stoull(random_hex(8), nullptr, 16); }

}  // namespace

http::Response error_response(const ApiError& error) {
  http::Response response = http::Response::json(error.status, error.to_json());
  if (error.retry_after_ms > 0) {
    response.headers.set("retry-after", std::to_string((error.retry_after_ms + 999) / 1000));
    response.headers.set("retry-after-ms", std::to_string(error.retry_after_ms));
  }
  return response;
}

std::optional<ApiError> context_error(const ServedModel& model, const std::vector<TokenId>& prompt,
                                      long wanted) {
  const long size = static_cast<long>(prompt.size());
  if (size >= model.context) return ApiError::context_length(model.context, size, 0);
  if (size + wanted > model.context) return ApiError::context_length(model.context, size, wanted);
  return std::nullopt;
}

Answer::Answer(Context context, const SamplingRequest& request, std::string id_prefix, int choices)
    : context_(std::move(context)),
      source_(*context_.model.source),
      request_(request),
      id_(std::move(id_prefix) + random_hex(12)),
      created_s_(std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count()),
      seed_(request.seed ? static_cast<std::uint64_t>(*request.seed) : fresh_seed()),
      choices_(static_cast<std::size_t>(choices)),
      began_(static_cast<std::size_t>(choices), context_.arrived),
      first_token_(static_cast<std::size_t>(choices), context_.arrived),
      last_token_(static_cast<std::size_t>(choices), context_.arrived),
      open_choices_(choices) {}

Json Answer::head(std::string_view object) const {
  Json head = Json::object({{"id", id_},
                            {"object", object},
                            {"created", created_s_},
                            {"model", request_.model},
                            {"system_fingerprint", "capstan-" + build_id()}});
  if (object.starts_with("chat.")) head["service_tier"] = tier_of(context_.priority);
  return head;
}

std::uint32_t tokens_left(const ServedModel& model, const std::vector<TokenId>& prompt, long wanted) {
  const long room = model.context - static_cast<long>(prompt.size());
  return static_cast<std::uint32_t>(wanted > 0 ? std::min(room, wanted) : room);
}

void Answer::start(const std::vector<std::vector<TokenId>>& prompts, int tokens_max, int top_logprobs,
                   bool logprobs, std::vector<std::shared_ptr<TokenConstraint>> constraints) {
  const std::size_t each = choices_a_prompt_ = choices_.size() / prompts.size();
  cached_tokens_.resize(choices_.size());
  for (std::size_t i = 0; i < choices_.size(); ++i)
    prompt_tokens_.push_back(static_cast<int>(prompts[i / each].size()));
  for (const auto& prompt : prompts) prompt_tokens_sum_ += static_cast<int>(prompt.size());
  const ModelProfile& profile = context_.model.profile;
  // top_p 0 means "the most likely token", which the engine says as temperature 0.
  const double top_p = request_.top_p.value_or(profile.top_p);
  const double temperature = top_p == 0 ? 0 : request_.temperature.value_or(profile.temperature);
  const auto self = shared_from_this();
  Sampling sampling{.temperature = static_cast<float>(temperature),
                    .top_p = top_p == 0 ? 1.0f : static_cast<float>(top_p),
                    .top_k = request_.top_k,
                    .min_p = static_cast<float>(request_.min_p),
                    .presence_penalty = static_cast<float>(request_.presence_penalty),
                    .frequency_penalty = static_cast<float>(request_.frequency_penalty)};
  for (const auto& [token, bias] : request_.logit_bias)
    sampling.logit_bias.emplace_back(static_cast<TokenId>(token), static_cast<float>(bias));
  for (int i = 0; i < static_cast<int>(choices_.size()); ++i) {
    sampling.seed = Prng::at(seed_, static_cast<std::uint64_t>(i) % each);
    GenerationRequest generation{
        .prompt = prompts[static_cast<std::size_t>(i) / each],
        .sampling = sampling,
        .tokens_max = tokens_max,
        .stop_tokens = context_.model.stop_tokens,
        .tenant = context_.tenant,
        .priority = context_.priority,
        .logprobs = logprobs,
        .top_logprobs = top_logprobs,
        .on_token = [self, i](const TokenEvent& event) { self->on_token(i, event); }};
    if (scores_prompt())
      generation.on_prompt_token = [self, i](const TokenEvent& event) { self->on_prompt_token(i, event); };
    if (!constraints.empty()) generation.constraint = constraints[static_cast<std::size_t>(i)];
    auto id = source_.submit(std::move(generation));
    const std::lock_guard lock(mutex_);
    if (!id) {
      refuse(ApiError::from(id.error()));
      return;
    }
    choices_[static_cast<std::size_t>(i)].id = *id;
    choices_[static_cast<std::size_t>(i)].submitted = true;
    if (over_) cancel_rest();  // the first choice may already have found the client gone
  }
  context_.metrics.prompt_tokens(prompt_tokens_sum_);
  context_.metrics.accepted(static_cast<int>(choices_.size()), tokens_max);
  context_.writer->on_client_gone([weak = weak_from_this()] {
    if (const auto answer = weak.lock()) {
      const std::lock_guard lock(answer->mutex_);
      answer->abandon();
    }
  });
}

void Answer::observe(const TokenEvent& event, int choice) {
  auto& last = last_token_[static_cast<std::size_t>(choice)];
  if (event.index == 0) {
    cached_tokens_[static_cast<std::size_t>(choice)] = event.cached_tokens;
    context_.metrics.first_token(seconds_since(context_.arrived));
    auto& began = began_[static_cast<std::size_t>(choice)];
    began = std::max(began, event.began);  // sources that do not say have no queue
    context_.metrics.prefilled(std::chrono::duration<double>(began - context_.arrived).count(),
                               seconds_since(began),
                               prompt_tokens_[static_cast<std::size_t>(choice)] - event.cached_tokens);
  } else {
    context_.metrics.next_token(seconds_since(last));
  }
  last = std::chrono::steady_clock::now();
  if (event.index == 0) first_token_[static_cast<std::size_t>(choice)] = last;
  context_.metrics.generated_token();
  if (request_.tokens_max != 0) ++completion_tokens_;
}

void Answer::observe_end(int choice, std::string_view reason, int tokens) {
  longest_ = std::max(longest_, tokens);
  const auto i = static_cast<std::size_t>(choice);
  context_.metrics.finished(
      {.reason = reason,
       .seconds = seconds_since(context_.arrived),
       .decode_seconds = std::chrono::duration<double>(last_token_[i] - first_token_[i]).count(),
       .inference_seconds = std::chrono::duration<double>(last_token_[i] - began_[i]).count(),
       .prompt_tokens = prompt_tokens_[i],
       .completion_tokens = tokens});
}

void Answer::on_token(int choice, const TokenEvent& event) {
  const std::lock_guard lock(mutex_);
  Choice& own = choices_[static_cast<std::size_t>(choice)];
  if (over_ || own.ended) return;
  if (event.finish == FinishReason::kFailed) {
    log_error("generation failed", "request={} why={}", id_, event.error);
    refuse(ApiError::server("The engine failed while generating."));
    return;
  }
  if (event.finish == FinishReason::kCancelled) {
    refuse(ApiError::unavailable("The engine is shutting down.", 1000));
    return;
  }
  if (streaming() && !started_) {
    started_ = true;
    context_.writer->start(
        200, {{"content-type", "text/event-stream; charset=utf-8"}, {"cache-control", "no-cache"}});
    begin_stream();
  }
  observe(event, choice);
  const bool complete_now = token(choice, event);
  if (over_) return;  // the client went away while we wrote
  if (complete_now && !event.finish) source_.cancel(event.id);
  if (complete_now || event.finish)
    choice_over(choice, !complete_now && event.finish == FinishReason::kLength);
}

void Answer::on_prompt_token(int choice, const TokenEvent& event) {
  const std::lock_guard lock(mutex_);
  if (!over_ && !choices_[static_cast<std::size_t>(choice)].ended) prompt_token(choice, event);
}

void Answer::choice_over(int choice, bool length) {
  choices_[static_cast<std::size_t>(choice)].ended = true;
  end(choice, length);
  if (!over_ && --open_choices_ == 0) complete();
}

Json Answer::usage() const {
  // A prompt is cached as far as it was for the luckiest of its choices.
  int cached = 0;
  for (std::size_t first = 0; first < choices_.size(); first += choices_a_prompt_)
    cached +=
        *std::max_element(cached_tokens_.begin() + static_cast<std::ptrdiff_t>(first),
                          cached_tokens_.begin() + static_cast<std::ptrdiff_t>(first + choices_a_prompt_));
  return Json::object(
      {{"prompt_tokens", prompt_tokens_sum_},
       {"completion_tokens", completion_tokens_},
       {"total_tokens", prompt_tokens_sum_ + completion_tokens_},
       {"prompt_tokens_details", Json::object({{"cached_tokens", cached}})},
       {"completion_tokens_details", Json::object({{"reasoning_tokens", reasoning_tokens()}})}});
}

void Answer::send(Json chunk) {
  if (over_) return;
  if (request_.include_usage && !chunk.contains("usage")) chunk["usage"] = nullptr;
  if (!context_.writer->write(http::sse_event(chunk.dump()))) abandon();
}

void Answer::complete() {
  if (streaming() && request_.include_usage) {
    Json chunk =
        head(context_.path.ends_with("/chat/completions") ? "chat.completion.chunk" : "text_completion");
    chunk["choices"] = Json::array();
    chunk["usage"] = usage();
    send(std::move(chunk));
  }
  if (over_) return;
  over_ = true;
  context_.metrics.longest_choice(longest_);  // before the client, which may look them up, sees the end
  context_.metrics.http_answer(context_.path, 200);
  if (streaming()) {
    context_.writer->write(http::sse_event("[DONE]"));
    context_.writer->finish();
    return;
  }
  Json body = whole();
  body["usage"] = usage();
  context_.writer->respond(http::Response::json(200, body));
}

void Answer::refuse(const ApiError& error) {
  if (over_) return;
  over_ = true;
  cancel_rest();
  context_.metrics.http_answer(context_.path, started_ ? 200 : error.status);
  if (started_) {  // the status is already out: the stream ends with the error
    context_.writer->write(http::sse_event(error.to_json().dump()));
    context_.writer->finish();
  } else {
    context_.writer->respond(error_response(error));
  }
}

void Answer::abandon() {
  if (over_) return;
  over_ = true;
  cancel_rest();
  observe_end(0, "abort", completion_tokens_);
  context_.metrics.http_answer(context_.path, 499);
}

void Answer::cancel_rest() {
  for (const Choice& choice : choices_) {
    if (choice.submitted && !choice.ended) source_.cancel(choice.id);
  }
}

}  // namespace capstan::engine
