#include "gateway/openai/batch_run.h"

#include <algorithm>
#include <ctime>
#include <thread>

#include "base/file.h"
#include "base/text.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {
namespace {

constexpr int kWaitMs = 250, kWaitMsMax = 10'000;
constexpr int kFailuresMax = 3;  // 5xx of a line; refusals for lack of room are tried until the batch expires

std::int64_t now_seconds() { return static_cast<std::int64_t>(std::time(nullptr)); }

// A line of the output or error file.
std::string output_line(const BatchLine& line, const http::Response& answer) {
  const auto body = Json::parse(answer.body);
  const std::string request_id = answer.headers.get("x-request-id");
  return Json::object({{"id", "batch_req_" + random_hex(12)},
                       {"custom_id", line.custom_id},
                       {"response", Json::object({{"status_code", answer.status},
                                                  {"request_id", request_id},
                                                  {"body", body ? *body : Json(answer.body)}})},
                       {"error", nullptr}})
      .dump();
}

std::string unsent_line(const BatchLine& line, std::string_view code, std::string_view message) {
  return Json::object({{"id", "batch_req_" + random_hex(12)},
                       {"custom_id", line.custom_id},
                       {"response", nullptr},
                       {"error", Json::object({{"code", code}, {"message", message}})}})
      .dump();
}

}  // namespace

BatchRun::BatchRun(Gateway& gateway, BatchTable& table, FileStore& files, std::string id)
    : gateway_(gateway), table_(table), files_(files), id_(std::move(id)) {}

void BatchRun::end(End how) {
  {
    const std::scoped_lock lock(mutex_);
    if (end_ == End::kNone) end_ = how;
    for (LocalCall* call : calls_) call->cancel();
    changed_.notify_all();
  }
}

void BatchRun::cancel() { end(End::kCancelled); }
void BatchRun::stop() { end(End::kStopped); }

bool BatchRun::ended() const {
  const std::scoped_lock lock(mutex_);
  return end_ != End::kNone;
}

Result<void> BatchRun::perform() {
  CAPSTAN_TRY(const bool valid, prepare());
  if (!valid) return {};
  run_lines();
  CAPSTAN_CHECK(std::exchange(failure_, {}));
  const std::scoped_lock lock(mutex_);
  if (end_ == End::kStopped) return {};
  return finish();
}

Result<bool> BatchRun::prepare() {
  CAPSTAN_TRY(const BatchRecord record, table_.read(id_));
  owner_ = record.owner;
  endpoint_ = record.batch.get_string("endpoint").value_or("");
  expires_ = record.batch.get_int("expires_at").value_or(0);
  outputs_kept_s_ = record.caller.get_int("outputs_kept_s").value_or(0);
  caller_ =
      std::make_shared<Caller>(Caller{.organisation = record.caller.get_string("organisation").value_or(""),
                                      .project = record.caller.get_string("project").value_or(""),
                                      .key_id = record.caller.get_string("key_id").value_or(""),
                                      .tier = ServiceTier::kBatch});
  if (record.batch.get_string("status") == "cancelling") cancel();
  const auto content = files_.content(owner_, record.batch.get_string("input_file_id").value_or(""));
  auto lines = content ? parse_batch_lines((*content)->bytes(), endpoint_)
                       : std::unexpected(Json::array({Json::object({{"code", "invalid_file"},
                                                                    {"line", nullptr},
                                                                    {"message", content.error().message},
                                                                    {"param", "input_file_id"}})}));
  if (!lines) {
    CAPSTAN_CHECK(table_.update(id_, [&](Json& batch) {
      batch["status"] = "failed";
      batch["failed_at"] = now_seconds();
      batch["errors"] = Json::object({{"object", "list"}, {"data", lines.error()}});
    }));
    return false;
  }
  lines_ = *std::move(lines);
  done_.assign(lines_.size(), 0);
  CAPSTAN_TRY(const auto stored, table_.lines(id_));
  for (const auto& line : stored) {
    if (line.line < static_cast<std::int64_t>(done_.size())) done_[static_cast<std::size_t>(line.line)] = 1;
  }
  CAPSTAN_CHECK(table_.update(id_, [&](Json& batch) {
    batch["request_counts"]["total"] = lines_.size();
    if (batch.get_string("status") != "validating") return;
    batch["status"] = "in_progress";
    batch["in_progress_at"] = now_seconds();
  }));
  return true;
}

void BatchRun::run_lines() {
  std::vector<std::jthread> threads;
  for (int i = 0; i < kLinesAtOnce; ++i) {
    threads.emplace_back([this] {
      while (true) {
        std::size_t index = 0;
        {
          const std::scoped_lock lock(mutex_);
          while (next_ < lines_.size() && done_[next_] != 0) ++next_;
          if (next_ == lines_.size() || end_ != End::kNone || !failure_) return;
          index = next_++;
        }
        run_line(index);
      }
    });
  }
}

void BatchRun::run_line(std::size_t index) {
  const BatchLine& line = lines_[index];
  const auto answer = ask(line);
  if (!answer) return;
  auto stored = table_.add_line(
      id_, {static_cast<std::int64_t>(index), answer->status == 200, output_line(line, *answer)});
  const std::scoped_lock lock(mutex_);
  if (!stored && failure_) failure_ = std::move(stored);
}

std::optional<http::Response> BatchRun::ask(const BatchLine& line) {
  int failures = 0;
  for (int wait_ms = kWaitMs;; wait_ms = std::min(2 * wait_ms, kWaitMsMax)) {
    if (now_seconds() >= expires_) end(End::kExpired);
    LocalCall call;
    {
      const std::scoped_lock lock(mutex_);
      if (end_ != End::kNone) return std::nullopt;
      calls_.insert(&call);
    }
    http::Response answer = call.perform(gateway_, caller_, endpoint_, line.body);
    std::unique_lock lock(mutex_);
    calls_.erase(&call);
    if (end_ != End::kNone && answer.status != 200) return std::nullopt;
    const bool again = lacks_room(answer) || (answer.status >= 500 && ++failures < kFailuresMax);
    if (!again) return answer;
    const std::int64_t asked_ms = parse_int(answer.headers.get("retry-after-ms")).value_or(0);
    changed_.wait_for(lock,
                      std::chrono::milliseconds(std::clamp<std::int64_t>(asked_ms, wait_ms, kWaitMsMax)),
                      [this] { return end_ != End::kNone; });
  }
}

Result<Json> BatchRun::write_file(const std::vector<BatchTable::Line>& lines, bool ok) {
  std::string text;
  for (const auto& line : lines) {
    if (line.ok == ok) text += line.output + "\n";
  }
  if (text.empty()) return Json();
  CAPSTAN_TRY(const Json file,
              files_.add(owner_, {.name = fmt::format("{}_{}.jsonl", id_, ok ? "output" : "error"),
                                  .purpose = "batch_output",
                                  .content = text,
                                  .expires = outputs_kept_s_ > 0 ? now_seconds() + outputs_kept_s_ : 0}));
  return *file.find("id");
}

// Called with the mutex held: nothing runs any more.
Result<void> BatchRun::finish() {
  CAPSTAN_CHECK(table_.update(id_, [&](Json& batch) {
    if (batch.get_string("status") == "in_progress") batch["status"] = "finalizing";
    batch["finalizing_at"] = now_seconds();
  }));
  CAPSTAN_TRY(std::vector<BatchTable::Line> lines, table_.lines(id_));
  if (end_ == End::kExpired) {
    for (const auto& line : lines) done_[static_cast<std::size_t>(line.line)] = 1;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (done_[i] == 0)
        lines.push_back(
            {static_cast<std::int64_t>(i), false,
             unsent_line(lines_[i], "batch_expired",
                         "This request could not be executed before the completion window expired.")});
    }
  }
  CAPSTAN_TRY(const Json output, write_file(lines, true));
  CAPSTAN_TRY(const Json errors, write_file(lines, false));
  const std::string status = end_ == End::kExpired     ? "expired"
                             : end_ == End::kCancelled ? "cancelled"
                                                       : "completed";
  CAPSTAN_CHECK(table_.update(id_, [&](Json& batch) {
    batch["status"] = status;
    batch[status + "_at"] = now_seconds();
    batch["output_file_id"] = output;
    batch["error_file_id"] = errors;
  }));
  return table_.drop_lines(id_);
}

}  // namespace capstan::gateway::openai
