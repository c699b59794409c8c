#include "gateway/core.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"

namespace capstan::gateway {

Core::Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayOptions& o)
    : directory(d), options(o), access_log(o.access_log), metrics_(std::move(r)) {}

std::shared_ptr<ReplicaTable> Core::replicas() {
  const std::uint64_t version = directory.version();  // before what it stands for
  const std::int64_t now_ms = loop.load()->now_ms();
  if (replicas_ && ((version != 0 && version == replicas_version_) || now_ms - replicas_ms_ < options.directory_ttl_ms))
    return replicas_;
  replicas_ = board_.table_of(directory.replicas());
  replicas_version_ = version;
  replicas_ms_ = now_ms;
  return replicas_;
}

void Core::count(const Settlement& settlement, bool stream) { metrics_.count(settlement, stream); }

void Core::start_on(http::EventLoop& on) {
  client = std::make_unique<http::AsyncClient>(on);
  access_log.start_on(on);
  kv_watch = std::make_unique<KvWatch>(on, *client, [this] { return replicas_; });
  loop = &on;
}

void Core::stop() {
  while (!in_flight.empty()) in_flight.front().shut_down();
  loop = nullptr;
  kv_watch.reset();
  client.reset();
  access_log.stop();
}

std::vector<std::string> model_names(const ReplicaDirectory& directory, const std::vector<Replica>& replicas) {
  std::vector<std::string> names;
  for (const Replica& replica : replicas) names.push_back(replica.model);
  for (const auto& [model, why] : directory.waiting()) names.push_back(model);
  for (std::string& alias : directory.aliases()) names.push_back(std::move(alias));
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

ApiError unknown_model(const ReplicaDirectory& directory, const std::string& model,
                       const std::vector<Replica>& all) {
  for (const auto& [name, why] : directory.waiting()) {
    if (name == model)
      return {.status = 503,
              .message = fmt::format("model '{}' is not ready: {}", model, why),
              .type = "server_error",
              .code = "model_not_ready"};
  }
  const auto names = model_names(directory, all);
  const std::vector<std::string_view> views(names.begin(), names.end());
  std::string message = fmt::format("the model '{}' does not exist; ", model);
  if (const auto close = nearest(model, views)) {
    message += fmt::format("did you mean '{}'?", *close);
  } else {
    message +=
        names.empty() ? std::string("none is served") : fmt::format("served are: {}", fmt::join(names, ", "));
  }
  return {.status = 404, .message = std::move(message), .param = "model", .code = "model_not_found"};
}

namespace {

// From one question to the system for many.
std::string new_request_id() {
  constexpr std::size_t kDigits = 24, kIdsAtOnce = 20;
  thread_local std::string digits;
  if (digits.size() < kDigits) digits = random_hex(static_cast<int>(kDigits / 2 * kIdsAtOnce));
  std::string id = "req_";
  id.append(digits, digits.size() - kDigits);
  digits.resize(digits.size() - kDigits);
  return id;
}

}  // namespace

std::string request_id_of(const http::Request& request) {
  const std::string* const found = request.headers.find("x-request-id");
  if (found == nullptr) return new_request_id();
  const std::string& given = *found;
  const bool plain = !given.empty() && given.size() <= 128 &&
                     std::ranges::all_of(given, [](unsigned char c) { return c > ' ' && c < 127; });
  return plain ? given : new_request_id();
}

}  // namespace capstan::gateway
