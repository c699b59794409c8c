#include "api/logs.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "api/errors.h"
#include "base/text.h"

namespace capstan::api {
namespace {

constexpr int kFollowSilenceMs = 24 * 3600 * 1000;

// Which rank is asked for, and which workers may have its log.
struct Wanted {
  protocol::RankId id;
  std::vector<std::string> urls;
};

Result<std::int64_t> number_of(const http::Request& request, std::string_view name, std::int64_t otherwise) {
  const auto text = request.query_value(name);
  if (!text) return otherwise;
  const auto number = parse_int(*text);
  if (!number || *number < 0) return fail(Code::kInvalid, "'{}' must be a whole number from 0, not '{}'", name, *text);
  return *number;
}

// The latest attempt of that rank; 0 if it never started.
std::int64_t latest_attempt(const controller::Workload& workload, std::int64_t rank) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob: return workload.job.attempt;
    case workload::Kind::kService: {
      const auto found = workload.service.replicas.find(rank);
      return found != workload.service.replicas.end() ? found->second.attempt : 0;
    }
    case workload::Kind::kTasks: {
      const auto& tasks = workload.tasks;
      if (const auto found = tasks.running.find(rank); found != tasks.running.end()) return found->second.attempt;
      if (const auto found = tasks.retried.find(rank); found != tasks.retried.end()) return found->second.attempt;
      return tasks.pending.contains(rank) ? 0 : 1;
    }
  }
  return 0;
}

std::int64_t size_of(const workload::Spec& spec) {
  if (spec.kind == workload::Kind::kJob) return spec.ranks;
  return spec.kind == workload::Kind::kTasks ? spec.count : INT64_MAX;
}

Result<Wanted> find(Backend& backend, const std::string& name, std::int64_t rank, std::int64_t attempt) {
  Result<Wanted> result = fail(Code::kNotFound, "there is no workload '{}'", name);
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) {
    const controller::Workload* workload = state.find(name);
    if (workload == nullptr) return;
    if (rank >= size_of(workload->spec)) {
      result = fail(Code::kNotFound, "'{}' has no rank {}; its last is {}", name, rank, size_of(workload->spec) - 1);
      return;
    }
    const std::int64_t latest = latest_attempt(*workload, rank);
    Wanted wanted{{workload->id, attempt > 0 ? attempt : latest, rank}, {}};
    for (const auto& [host_name, host] : state.hosts) wanted.urls.push_back(host.logs_url);
    if (latest == 0) {
      result = fail(Code::kNotFound, "rank {} of '{}' has not started yet; see: capstan explain {}", rank, name, name);
    } else {
      result = std::move(wanted);
    }
  }));
  return result;
}

}  // namespace

void LogRelay::operator()(const http::Request& request, const http::ResponseWriterPtr& writer) const {
  const auto rank = number_of(request, "rank", 0);
  const auto attempt = number_of(request, "attempt", 0);
  const auto tail = number_of(request, "tail", 0);
  for (const auto* number : {&rank, &attempt, &tail}) {
    if (!*number) return writer->respond(to_response(number->error()));
  }
  const auto wanted = find(backend, request.param("name"), *rank, *attempt);
  if (!wanted) return writer->respond(to_response(wanted.error()));
  std::string target = fmt::format("/logs?job={}&attempt={}&rank={}", wanted->id.job, wanted->id.attempt, wanted->id.rank);
  if (*tail > 0) target += fmt::format("&tail_bytes={}", *tail);
  if (request.query_value("follow").value_or("0") == "1") target += "&follow=1";

  http::Cancellation cancellation;
  const auto gone = std::make_shared<std::pair<std::mutex, http::Cancellation*>>();  // shared with the callback, which may come late
  gone->second = &cancellation;
  writer->on_client_gone([gone] {
    const std::scoped_lock lock(gone->first);
    if (gone->second != nullptr) gone->second->cancel();
  });
  Error last{Code::kNotFound, fmt::format("no host has a log of rank {}", *rank), {}};
  bool started = false;
  for (const std::string& url : wanted->urls) {
    const http::Request upstream{.target = target, .headers = {{"authorization", "Bearer " + worker_token}}};
    const auto result = client.stream(
        url, upstream, {.timeout_ms = kFollowSilenceMs, .cancellation = &cancellation},
        [&](const http::Response& head) {
          if (head.status != 200) return false;
          started = true;
          writer->start(200, {{"content-type", "text/plain; charset=utf-8"}});
          return true;
        },
        [&](std::string_view piece) { return writer->write(piece); });
    if (started) break;
    if (!result && result.error().code != Code::kCancelled) last = result.error();
  }
  {
    const std::scoped_lock lock(gone->first);
    gone->second = nullptr;
  }
  if (started) return writer->finish();
  writer->respond(to_response(last));
}

}  // namespace capstan::api
