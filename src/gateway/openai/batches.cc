#include "gateway/openai/batches.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "base/file.h"
#include "base/log.h"
#include "gateway/openai/responses_checks.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {
namespace {

std::int64_t now_seconds() { return static_cast<std::int64_t>(std::time(nullptr)); }

ApiError api_error(const Error& error) {
  if (error.code == Code::kNotFound) return {.status = 404, .message = error.message};
  return {.status = 500, .message = error.message, .type = "server_error"};
}

constexpr std::array<std::string_view, 4> kEndpoints = {"/v1/chat/completions", "/v1/responses",
                                                        "/v1/completions", "/v1/embeddings"};

// What is wrong with a request for a batch; nothing if it is well.
std::optional<ApiError> wrong(const Json& body) {
  const auto refuse = [](std::string param, std::string message) {
    return ApiError{.message = std::move(message), .param = std::move(param), .code = "invalid_value"};
  };
  for (const std::string_view key : {"input_file_id", "endpoint", "completion_window"}) {
    const Json* value = given(body, key);
    if (value == nullptr) return missing(std::string(key)).error();
    if (!value->is_string()) return wrong_type(std::string(key), "a string", *value).error();
  }
  if (const auto checked = check_metadata(body); !checked) return checked.error();
  const auto endpoint = body.get_string("endpoint");
  if (!endpoint || std::ranges::find(kEndpoints, *endpoint) == kEndpoints.end())
    return refuse(
        "endpoint",
        "'endpoint' must be /v1/chat/completions, /v1/responses, /v1/completions or /v1/embeddings");
  if (body.get_string("completion_window") != "24h")
    return refuse("completion_window", "'completion_window' must be 24h");
  if (const Json* expiry = given(body, "output_expires_after")) {
    const auto seconds = expiry->get_int("seconds");
    if (expiry->get_string("anchor") != "created_at")
      return refuse("output_expires_after.anchor", "the anchor must be created_at");
    if (!seconds || *seconds < 3600 || *seconds > 2'592'000)
      return refuse("output_expires_after.seconds", "the seconds must be 3600 to 2592000");
  }
  return std::nullopt;
}

Json new_batch(const std::string& id, const Json& body) {
  Json batch = Json::object({{"id", id},
                             {"object", "batch"},
                             {"endpoint", *body.get_string("endpoint")},
                             {"errors", nullptr},
                             {"input_file_id", *body.get_string("input_file_id")},
                             {"completion_window", "24h"},
                             {"status", "validating"},
                             {"output_file_id", nullptr},
                             {"error_file_id", nullptr},
                             {"created_at", now_seconds()},
                             {"expires_at", now_seconds() + kBatchSeconds}});
  for (const char* key : {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
                          "cancelling_at", "cancelled_at"})
    batch[key] = nullptr;
  batch["request_counts"] = Json::object({{"total", 0}, {"completed", 0}, {"failed", 0}});
  const Json* metadata = body.find("metadata");
  batch["metadata"] = metadata == nullptr ? Json() : *metadata;
  return batch;
}

}  // namespace

Batches::Batches(Gateway& gateway, store::Database& database, FileStore& files)
    : gateway_(gateway), table_(database), files_(files) {}

void Batches::start() {
  for (int i = 0; i < kBatchesAtOnce; ++i)
    threads_.emplace_back([this](const std::stop_token& stop) { serve(stop); });
}

Batches::~Batches() {
  for (auto& thread : threads_) thread.request_stop();
  const std::scoped_lock lock(mutex_);
  for (const auto& [id, run] : running_) run->stop();
}

std::expected<Json, ApiError> Batches::create(const Caller& caller, const Json& body) {
  if (auto refused = wrong(body)) return std::unexpected(*std::move(refused));
  const std::string owner = owner_of(caller), input = *body.get_string("input_file_id");
  const auto file = files_.find(owner, input);
  if (!file) return std::unexpected(api_error(file.error()));
  if (file->get_string("purpose") != "batch")
    return std::unexpected(ApiError{.message = fmt::format("the purpose of '{}' must be batch, not '{}'",
                                                           input, file->get_string("purpose").value_or("")),
                                    .param = "input_file_id",
                                    .code = "invalid_value"});
  const auto open = table_.count_open(owner);
  if (!open) return std::unexpected(api_error(open.error()));
  if (*open >= kBatchesMax)
    return std::unexpected(ApiError{
        .status = 429,
        .message = fmt::format("{} batches of this project are unfinished, which is the limit", kBatchesMax),
        .type = "rate_limit_error",
        .code = "rate_limit_exceeded"});
  BatchRecord record{.id = "batch_" + random_hex(12), .owner = owner, .caller = {}, .batch = {}};
  record.caller = Json::object(
      {{"organisation", caller.organisation}, {"project", caller.project}, {"key_id", caller.key_id}});
  if (const Json* expiry = given(body, "output_expires_after"))
    record.caller["outputs_kept_s"] = expiry->get_int("seconds").value_or(0);
  record.batch = new_batch(record.id, body);
  if (const auto added = table_.add(record); !added) return std::unexpected(api_error(added.error()));
  const std::scoped_lock lock(mutex_);
  ++news_;
  changed_.notify_all();
  return record.batch;
}

std::expected<Json, ApiError> Batches::find(const std::string& owner, const std::string& id) const {
  auto record = table_.read(id);
  if (!record) return std::unexpected(api_error(record.error()));
  if (record->owner != owner)
    return std::unexpected(
        ApiError{.status = 404, .message = fmt::format("No batch found with id '{}'.", id)});
  return std::move(record->batch);
}

std::expected<Json, ApiError> Batches::cancel(const std::string& owner, const std::string& id) {
  auto found = find(owner, id);
  if (!found) return found;
  bool changed = false;
  auto after = table_.update(id, [&](Json& batch) {
    changed = true;
    batch["status"] = "cancelling";
    batch["cancelling_at"] = now_seconds();
  });
  if (!after) return std::unexpected(api_error(after.error()));
  if (!changed)
    return std::unexpected(ApiError{.status = 409,
                                    .message = fmt::format("the batch '{}' has ended: it is {}", id,
                                                           after->get_string("status").value_or("")),
                                    .code = "batch_has_ended"});
  const std::scoped_lock lock(mutex_);
  if (const auto run = running_.find(id); run != running_.end()) run->second->cancel();
  return *std::move(after);
}

std::expected<Json, ApiError> Batches::list(const std::string& owner, const std::string& after,
                                            std::int64_t limit) const {
  auto list = table_.list(owner, after, limit);
  if (!list) return std::unexpected(api_error(list.error()));
  return *std::move(list);
}

std::shared_ptr<BatchRun> Batches::claim() {
  const auto ids = table_.open_ids();
  if (!ids) {
    log_error("batches cannot be read", "why={}", ids.error().message);
    return nullptr;
  }
  const std::scoped_lock lock(mutex_);
  for (const std::string& id : *ids) {
    if (running_.contains(id)) continue;
    auto run = std::make_shared<BatchRun>(gateway_, table_, files_, id);
    running_.emplace(id, run);
    return run;
  }
  return nullptr;
}

void Batches::serve(const std::stop_token& stop) {
  std::uint64_t seen = 0;
  while (!stop.stop_requested()) {
    if (const auto run = claim()) {
      if (stop.stop_requested()) run->stop();
      if (const auto ended = run->perform(); !ended) {
        log_error("a batch cannot go on", "id={} why={}", run->id(), ended.error().message);
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, stop, std::chrono::seconds(5),
                          [] { return false; });  // the disk may have room again
      }
      const std::scoped_lock lock(mutex_);
      running_.erase(run->id());
      continue;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, std::chrono::seconds(5), [&] { return news_ != seen; });
    seen = news_;
  }
}

}  // namespace capstan::gateway::openai
