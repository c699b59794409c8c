// How: a Pass holds what a request was given (reservation, ledger slot, place) and gives it back exactly once. A
// request that waits is a Place; the queue's call turns it into a Pass, unless the Place was destroyed before: a
// mutex of its own decides which of the two came first.
#include "gateway/tenancy/tenant_admission.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/log.h"
#include "gateway/limits/limiter.h"
#include "gateway/queue/gates.h"
#include "gateway/tenancy/callers.h"
#include "gateway/tenancy/refusals.h"

namespace capstan::gateway {
namespace {

using store::UsageRecord;

constexpr int kRefreshMs = 100;
constexpr std::int64_t kOutputWeight = 2;  // a generated token costs a replica about twice a prompt's
constexpr int kUnboundedPlaces = 1 << 20;

std::int64_t work(std::int64_t prompt, std::int64_t completion) { return prompt + kOutputWeight * completion; }

template <std::size_t N>
void copy_to(std::array<char, N>& out, std::string_view text) {
  std::memcpy(out.data(), text.data(), std::min(text.size(), N));
}

store::UsageOf usage_of(const store::LimitRule& rule, store::Catalogue& catalogue) {
  store::UsageOf of;
  if (rule.subject == store::Subject::kOrganisation) of.organisation = rule.subject_id;
  if (rule.subject == store::Subject::kProject) of.project = rule.subject_id;
  if (rule.subject == store::Subject::kKey) of.key = rule.subject_id;
  if (!rule.model.empty()) of.model = catalogue.number_of(rule.model);
  return of;
}

// What the request asked for, but no better than the key's own tier.
store::Tier tier_for(ServiceTier asked, ServiceTier own) {
  return static_cast<store::Tier>(asked == ServiceTier::kDefault ? own : std::max(asked, own));
}

}  // namespace

struct TenantAdmission::Desk {
  Desk(store::Database& d, store::Tenants& t, store::Catalogue& c, Meter& m, Ready r, const AdmissionOptions& o)
      : database(d), tenants(t), catalogue(c), meter(m), ready(std::move(r)), options(o) {}

  store::Database& database;
  store::Tenants& tenants;
  store::Catalogue& catalogue;
  Meter& meter;
  Ready ready;
  AdmissionOptions options;
  Limiter limiter;
  Gates gates{options.queue};
  std::mutex refreshing;
  std::uint64_t limits_version = 0;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;

  std::int64_t now_ms() const { return options.now_ms ? options.now_ms() : unix_now_ms(); }

  int capacity_of(const std::string& model, const std::map<std::string, int, std::less<>>& replicas) const {
    const auto found = replicas.find(model);
    if (found == replicas.end() || found->second == 0) return kUnboundedPlaces;
    const auto known = catalogue.find(model);
    const bool own = known && known->requests_per_replica > 0;
    return found->second * (own ? static_cast<int>(known->requests_per_replica) : options.requests_per_replica);
  }

  std::int64_t used_before(const store::LimitRule& rule, Span window) {
    (void)meter.flush();
    const auto sum = store::usage_since(database, usage_of(rule, catalogue), window.begin_ms, window.end_ms);
    if (!sum) {
      log_error("a limit begins with nothing used", "limit={} error=\"{}\"", rule.id, sum.error().message);
      return 0;
    }
    return Amounts{sum->requests, sum->input_tokens, sum->output_tokens, sum->nano_dollars}.of(rule.unit);
  }

  void refresh() {
    const std::lock_guard lock(refreshing);
    if (const auto version = tenants.limits_version(); version != limits_version) {
      limits_version = version;
      limiter.set_rules(tenants.limits(), now_ms(),
                        [this](const store::LimitRule& rule, Span window) { return used_before(rule, window); });
    }
    const auto models = gates.models();
    if (models.empty()) return;
    const auto replicas = ready();
    for (const std::string& model : models) gates.set_capacity(model, capacity_of(model, replicas));
  }
};

// A request that was let in.
class TenantAdmission::Pass final : public Permit {
 public:
  std::shared_ptr<Desk> desk;
  CallerPtr caller;
  std::string model;
  Limiter::Reservation reservation;
  Ledger::Slot slot = 0;
  UsageRecord record;
  bool held = true;  // something is to be given back

  Payer payer() const {
    return {caller->organisation_number, caller->project_number, caller->key_number, model};
  }
  ~Pass() override { release(); }

  void release() {
    if (!std::exchange(held, false)) return;
    desk->limiter.settle(reservation, {});
    desk->meter.ledger().free(slot);
    desk->gates.leave(model, static_cast<std::uint64_t>(record.id), 0);
  }

  void add_headers(http::Headers& headers) override {
    static constexpr const char* kNames[2][3] = {
        {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
        {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"}};
    const std::int64_t now_ms = desk->now_ms();
    for (const bool tokens : {false, true}) {
      const auto left = desk->limiter.remaining(payer(), tokens, now_ms);
      if (!left) continue;
      headers.set(kNames[tokens][0], std::to_string(left->limit));
      headers.set(kNames[tokens][1], std::to_string(left->remaining));
      headers.set(kNames[tokens][2], format_reset(left->reset_ms));
    }
  }

  void progress(std::int64_t completion_tokens) override { desk->meter.ledger().progress(slot, completion_tokens); }

  void settle(const Settlement& end) override {
    if (end.replica.empty()) return release();  // nothing was used
    if (!std::exchange(held, false)) return;
    record.prompt_tokens = end.usage.prompt_tokens;
    record.cached_tokens = std::min(end.usage.cached_tokens, end.usage.prompt_tokens);
    record.completion_tokens = end.usage.completion_tokens;
    record.reasoning_tokens = end.usage.reasoning_tokens;
    record.exact = end.usage.exact;
    record.status = static_cast<std::int16_t>(end.status);
    record.queued_ms = static_cast<std::int32_t>(end.queued_ms);
    record.first_byte_ms = static_cast<std::int32_t>(end.first_byte_ms);
    record.total_ms = static_cast<std::int32_t>(end.total_ms);
    copy_to(record.request_id, end.request_id);
    copy_to(record.path, end.path);
    record.nano_dollars = store::cost_nano_dollars(record.price, record.prompt_tokens, record.cached_tokens,
                                                   record.completion_tokens);
    desk->meter.ledger().finish(slot, record);
    desk->limiter.settle(reservation, {1, record.prompt_tokens, record.completion_tokens, record.nano_dollars});
    desk->gates.leave(model, static_cast<std::uint64_t>(record.id), work(record.prompt_tokens, record.completion_tokens));
  }
};

// A request that waits.
class TenantAdmission::Place final : public Waiting {
 public:
  struct State {
    std::recursive_mutex mutex;  // the call may destroy the Place
    std::unique_ptr<Pass> pass;  // until it starts or leaves
    std::function<void(Verdict)> later;

    void start() {
      const std::lock_guard lock(mutex);
      if (pass) later(Verdict(std::move(pass)));
    }
  };
  explicit Place(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ~Place() override {
    std::unique_ptr<Pass> left;
    {
      const std::lock_guard lock(state_->mutex);
      left = std::move(state_->pass);
    }
  }

 private:
  std::shared_ptr<State> state_;  // shared with the queue's call
};

TenantAdmission::TenantAdmission(store::Database& database, store::Tenants& tenants, store::Catalogue& catalogue,
                                 Meter& meter, Ready ready, const AdmissionOptions& options)
    : desk_(std::make_shared<Desk>(database, tenants, catalogue, meter, std::move(ready), options)) {
  desk_->refresh();
  thread_ = std::thread([desk = desk_] {
    std::unique_lock lock(desk->mutex);
    while (!desk->wake.wait_for(lock, std::chrono::milliseconds(kRefreshMs), [&] { return desk->stopping; })) {
      lock.unlock();
      desk->refresh();
      lock.lock();
    }
  });
}

TenantAdmission::~TenantAdmission() {
  {
    const std::lock_guard lock(desk_->mutex);
    desk_->stopping = true;
  }
  desk_->wake.notify_all();
  thread_.join();
}

void TenantAdmission::refresh() { desk_->refresh(); }

std::pair<std::int64_t, std::int64_t> TenantAdmission::state_of_limit(std::int64_t rule) {
  return desk_->limiter.state_of(rule, desk_->now_ms());
}

namespace {

std::optional<ApiError> forbidden(const Caller& caller, std::string_view model) {
  ApiError error{.status = 403, .type = "permission_error", .code = "insufficient_permissions"};
  if (!caller.scopes.empty() && std::ranges::find(caller.scopes, "inference") == caller.scopes.end()) {
    error.message = fmt::format("this key lacks the scope 'inference'; it has {}", fmt::join(caller.scopes, ", "));
    return error;
  }
  if (!caller.models.empty() && std::ranges::find(caller.models, model) == caller.models.end()) {
    error.message = fmt::format("this key may not use the model '{}'; it may use {}", model, fmt::join(caller.models, ", "));
    error.param = "model";
    return error;
  }
  return std::nullopt;
}

}  // namespace

Admission::Decision TenantAdmission::admit(const CallerPtr& caller, const CostEstimate& cost,
                                           std::function<void(Verdict)> later) {
  const auto refuse = [](ApiError error) { return Decision(Verdict(std::unexpected(std::move(error)))); };
  if (auto error = forbidden(*caller, cost.model)) return refuse(std::move(*error));
  const std::int64_t now_ms = desk_->now_ms();
  auto pass = std::make_unique<Pass>();
  pass->held = false;
  pass->desk = desk_;
  pass->caller = caller;
  pass->model = cost.model;
  UsageRecord& record = pass->record;
  record.key = caller->key_number;
  record.project = caller->project_number;
  record.organisation = caller->organisation_number;
  if (const auto model = desk_->catalogue.find(cost.model)) {
    record.model = model->id;
    record.price = model->price;
  } else {
    record.model = desk_->catalogue.number_of(cost.model);
  }
  record.tier = tier_for(cost.tier, caller->tier);
  record.prompt_tokens = cost.prompt_tokens;
  const Amounts estimate{
      1, cost.prompt_tokens, cost.completion_tokens_max,
      store::cost_nano_dollars(record.price, cost.prompt_tokens, 0, cost.completion_tokens_max)};
  auto reserved = desk_->limiter.reserve(pass->payer(), estimate, now_ms);
  if (!reserved) {
    const store::LimitRule& rule = reserved.error().rule;
    return refuse(to_error(reserved.error(), desk_->tenants.subject_path(rule.subject, rule.subject_id)));
  }
  pass->reservation = std::move(*reserved);
  const auto slot = desk_->meter.begin(record, now_ms);
  if (!slot) {
    desk_->limiter.settle(pass->reservation, {});
    return refuse({.status = 503,
                   .message = fmt::format("{} requests are under way or wait to be written down; try again in a moment",
                                          std::uint32_t{Ledger::kSlots}),
                   .type = "server_error",
                   .code = "overloaded"});
  }
  pass->slot = *slot;

  const auto place = std::make_shared<Place::State>();  // shared with the queue's call
  const QueueItem item{.id = static_cast<std::uint64_t>(record.id),
                       .tenant = record.project,
                       .weight = caller->weight,
                       .tier = record.tier,
                       .tokens = work(cost.prompt_tokens, cost.completion_tokens_max)};
  const std::lock_guard not_yet(place->mutex);  // a call may come before this returns
  const auto entry = desk_->gates.enter(
      cost.model, item, [&] { return desk_->capacity_of(pass->model, desk_->ready()); }, [place] { place->start(); });
  if (entry == FairQueue::Entry::kFull) {
    desk_->limiter.settle(pass->reservation, {});
    desk_->meter.ledger().free(pass->slot);
    return refuse({.status = 429,
                   .message = fmt::format("all replicas of '{}' are busy and too many requests wait; try again in a moment",
                                          cost.model),
                   .type = "server_error",
                   .code = "overloaded"});
  }
  pass->held = true;
  if (entry == FairQueue::Entry::kStarts) return Decision(Verdict(std::move(pass)));
  place->pass = std::move(pass);
  place->later = std::move(later);
  return Decision(std::unique_ptr<Waiting>(std::make_unique<Place>(place)));
}

}  // namespace capstan::gateway
