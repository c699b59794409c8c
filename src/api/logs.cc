#include "api/logs.h"

#include "api/errors.h"
#include "api/query.h"
#include "controller/view.h"
#include "http/cancel_when_gone.h"

namespace capstan::api {
namespace {

constexpr int kFollowSilenceMs = 24 * 3600 * 1000;

Result<controller::LogPlace> find(Backend& backend, const std::string& name, std::int64_t rank,
                                  std::int64_t attempt) {
  Result<controller::LogPlace> result = fail(Code::kNotFound, "there is no workload '{}'", name);
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) {
    if (const auto* workload = state.find(name))
      result = controller::log_place(state, *workload, rank, attempt);
  }));
  return result;
}

}  // namespace

void LogRelay::operator()(const http::Request& request, const http::ResponseWriterPtr& writer) const {
  const auto rank = query_number(request, "rank", 0);
  const auto attempt = query_number(request, "attempt", 0);
  const auto tail = query_number(request, "tail", 0);
  for (const auto* number : {&rank, &attempt, &tail}) {
    if (!*number) return writer->respond(to_response(number->error()));
  }
  const auto place = find(backend, request.param("name"), *rank, *attempt);
  if (!place) return writer->respond(to_response(place.error()));
  std::string target =
      fmt::format("/logs?job={}&attempt={}&rank={}", place->id.job, place->id.attempt, place->id.rank);
  if (*tail > 0) target += fmt::format("&tail_bytes={}", *tail);
  if (request.query_value("follow").value_or("0") == "1") target += "&follow=1";

  http::Cancellation cancellation;
  const http::CancelWhenGone guard(*writer, cancellation);
  Error refusal{Code::kNotFound, fmt::format("the host has no log of rank {} any more", *rank), {}};
  bool started = false;
  const http::Request upstream{.target = target, .headers = {{"authorization", "Bearer " + worker_token}}};
  const auto result = client.stream(
      place->logs_url, upstream, {.timeout_ms = kFollowSilenceMs, .cancellation = &cancellation},
      [&](const http::Response& head) {
        if (head.status != 200) return false;
        started = true;
        writer->start(200, {{"content-type", "text/plain; charset=utf-8"}});
        return true;
      },
      [&](std::string_view piece) { return writer->write(piece); });
  if (!result && result.error().code != Code::kCancelled) refusal = result.error();
  if (started) return writer->finish();
  writer->respond(to_response(refusal));
}

void ResultsRelay::operator()(const http::Request& request, const http::ResponseWriterPtr& writer) const {
  const std::string name = request.param("name");
  Result<std::vector<std::string>> hosts = fail(Code::kNotFound, "there is no workload '{}'", name);
  std::int64_t job = 0;
  const auto read = backend.read([&](const controller::State& state) {
    const auto* workload = state.find(name);
    if (workload == nullptr) return;
    job = workload->id;
    hosts = controller::results_places(state, *workload);
  });
  if (!read) return writer->respond(to_response(read.error()));
  if (!hosts) return writer->respond(to_response(hosts.error()));
  http::Cancellation cancellation;
  const http::CancelWhenGone guard(*writer, cancellation);
  const http::Request upstream{.target = fmt::format("/results?job={}", job),
                               .headers = {{"authorization", "Bearer " + worker_token}}};
  // A host that has none says so, and is passed over; one that does not answer must not look like one that has none.
  writer->start(200, {{"content-type", "application/jsonl"}});
  for (const std::string& host : *hosts) {
    const auto sent = client.stream(
        host, upstream, {.timeout_ms = kFollowSilenceMs, .cancellation = &cancellation},
        [&](const http::Response& head) { return head.status == 200; },
        [&](std::string_view piece) { return writer->write(piece); });
    if (writer->client_gone()) return;
    if (!sent && sent.error().code == Code::kUnavailable) {
      const std::string why = fmt::format("the results of {} are missing: {}", host, sent.error().message);
      if (!writer->write(Json::object({{"error", why}}).dump() + "\n")) return;
    }
  }
  writer->finish();
}

}  // namespace capstan::api
