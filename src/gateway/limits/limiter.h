// Limits of requests, tokens and money per window: reserve an estimate, settle with what was used.
//
//   Limiter limiter;
//   limiter.set_rules(tenants.limits(), now_ms, [&](const LimitRule& rule, Span window) { return used_since(…); });
//   auto reserved = limiter.reserve({.organisation = 1, .project = 2, .key = 3, .model = "abacus"}, estimate, now_ms);
//   if (!reserved) return refuse(reserved.error());        // which limit, how much is left, when to try again
//   limiter.settle(*reserved, actual);                     // or release: settle({})
//
// A request counts in the windows in which it was admitted. What is used and reserved in a window never passes
// the limit at admission, and since a settlement replaces its reservation, nothing of an estimate stays behind.
// If a request used more than was reserved for it, the excess counts all the same, and the next are refused.
// Pure: time is an argument. Threads: every method from any thread; one mutex, held for a few additions.
// Cost: a hash lookup and one addition for each limit that applies; no allocation once a caller is known.
// Bounds: kCallersMax (callers are forgotten all at once, which costs a lookup each).
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gateway/limits/window.h"
#include "store/tenants.h"

namespace capstan::gateway {

inline constexpr std::size_t kCallersMax = 100'000;

struct Amounts {
  std::int64_t requests = 0;
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t nano_dollars = 0;
  std::int64_t of(store::Unit unit) const;
};

// Whom limits are counted for.
struct Payer {
  std::int64_t organisation = 0;
  std::int64_t project = 0;
  std::int64_t key = 0;
  std::string_view model = {};
};

struct LimitRefusal {
  store::LimitRule rule;
  std::int64_t used = 0;      // settled in this window
  std::int64_t reserved = 0;  // by requests under way
  std::int64_t wanted = 0;
  std::int64_t retry_after_ms = 0;  // 0: never, this request alone is past the limit
};

// What remains of the tightest limit of a unit, for rate-limit headers.
struct Remaining {
  std::int64_t limit = 0;
  std::int64_t remaining = 0;
  std::int64_t reset_ms = 0;  // from now
};

class Limiter {
  struct Counter;

 public:
  // Holds room in the windows of all limits that apply. Moved from or settled: empty.
  class Reservation {
   public:
    Reservation() = default;
    bool empty() const { return entries_.empty(); }

   private:
    friend class Limiter;
    struct Entry {
      std::shared_ptr<Counter> counter;  // shared with the limiter, which may drop its rule meanwhile
      std::int64_t window_begin_ms = 0;
      std::int64_t amount = 0;
    };
    std::vector<Entry> entries_;
  };

  // What was used already in a rule's window: asked once for each new rule, while requests go on.
  using UsedBefore = std::function<std::int64_t(const store::LimitRule&, Span window)>;
  // The rules that hold from now on. A rule that was there keeps its counts; its amount may change. What is
  // under way when a rule is made does not count for it.
  void set_rules(const std::vector<store::LimitRule>& rules, std::int64_t now_ms, const UsedBefore& used_before);

  std::expected<Reservation, LimitRefusal> reserve(const Payer& payer, const Amounts& estimate, std::int64_t now_ms);
  // Once; settling again changes nothing.
  void settle(Reservation& reservation, const Amounts& actual);

  // Of the limits on requests and on tokens that bind this payer in a minute or a day, the tightest.
  std::optional<Remaining> remaining(const Payer& payer, bool tokens, std::int64_t now_ms);
  // (used, reserved) of a rule in its window.
  std::pair<std::int64_t, std::int64_t> state_of(std::int64_t rule, std::int64_t now_ms);

 private:
  struct Counter {
    store::LimitRule rule;
    Span window;
    std::int64_t used = 0;
    std::int64_t reserved = 0;
  };
  using Counters = std::vector<std::shared_ptr<Counter>>;  // shared with reservations
  struct CallerKey {
    std::int64_t organisation, project, key;
    std::string model;
    bool operator==(const CallerKey&) const = default;
  };
  struct CallerView {
    std::int64_t organisation, project, key;
    std::string_view model;
  };
  struct CallerHash {
    using is_transparent = void;
    std::size_t operator()(const CallerKey& k) const { return of(k.organisation, k.project, k.key, k.model); }
    std::size_t operator()(const CallerView& k) const { return of(k.organisation, k.project, k.key, k.model); }
    static std::size_t of(std::int64_t o, std::int64_t p, std::int64_t k, std::string_view model);
  };
  struct CallerEqual {
    using is_transparent = void;
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return a.organisation == b.organisation && a.project == b.project && a.key == b.key && a.model == b.model;
    }
  };

  const Counters& counters_of(const Payer& payer);
  static void roll(Counter& counter, std::int64_t now_ms);
  static std::optional<LimitRefusal> refusal(const Counter& counter, std::int64_t wanted, std::int64_t now_ms);

  static bool same_but_amount(const store::LimitRule& a, const store::LimitRule& b);

  std::mutex rules_mutex_;  // one set_rules at a time
  std::mutex mutex_;        // of what follows
  std::unordered_map<std::int64_t, std::shared_ptr<Counter>> rules_;
  std::unordered_map<CallerKey, Counters, CallerHash, CallerEqual> callers_;
};

}  // namespace capstan::gateway
