// World: the real controller, a clock that is moved by hand, and an executor that starts and stops nothing,
// at once.
//
//   World world;
//   world.apply(controller::ApplyFleet{spec, true});
//   const double ms = world.apply(controller::Apply{{gang}});   // from command in to events encoded
//   world.settle();                                             // what was to start has started, what was to
//   stop has ended world.end(world.id_of("gang"));                             // all its ranks exit with 0
//
// Hosts report as workers do: an input for each host that has something to say. What the executor and the
// books here cost is not part of the time that apply() gives. Threads: one owner.  Failure: a command that
// the controller refuses is a bug of the benchmark and asserts, unless it was given to `try_apply`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "controller/controller.h"

namespace capstan::apps::bench {

using fleet::HostId;
using Command = decltype(controller::Input::what);

class World {
 public:
  // Each event of every input, after it was encoded.
  using Watch = std::function<void(const Json& event)>;
  // Each input and its outcome, with the text of its events: a journal.
  using Record = std::function<void(const controller::Input& input, const controller::Outcome& outcome)>;

  static constexpr std::int64_t kBeginMs = 1'700'000'000'000;

  World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Milliseconds from command in to events encoded.
  double apply(Command command);
  Result<double> try_apply(Command command);
  // Of the last input: its events as one JSON array; how many there were.
  std::string_view encoded() const { return text_; }
  const controller::Outcome& outcome() const { return outcome_; }

  // Hosts report starts and stops until nobody has anything to say. Returns what the inputs took.
  double settle();
  // Nobody does what the last inputs asked for: somebody else has taken their effects.
  void discard_effects() { to_tell_.clear(); }
  // Every rank of the job's attempt exits with 0; without what follows (settle). Returns what the inputs
  // took.
  double end(std::int64_t job);
  // Moves the clock, with the ticks that the controller asks for on the way.
  void advance_to(std::int64_t time_ms);

  std::int64_t now_ms() const { return now_ms_; }
  controller::Controller& controller() { return controller_; }
  const controller::State& state() const { return controller_.state(); }
  std::int64_t id_of(std::string_view name) const;
  const std::string& fingerprint() { return fingerprint_text_ = fingerprint_.text(); }
  std::int64_t inputs() const { return inputs_; }
  std::int64_t events() const { return events_; }
  std::int64_t effects() const { return effects_; }
  double controller_ms() const { return controller_ms_; }  // of all inputs together
  void set_record(Record record) { record_ = std::move(record); }
  void set_watch(Watch watch) { watch_ = std::move(watch); }

 private:
  // Ranks of one attempt on one host.
  struct Part {
    HostId host{};
    std::int64_t attempt = 0;
    std::int64_t first = 0;
    std::int64_t count = 0;
  };
  void take_effects();
  double tell(const controller::HostEffect& effect);

  controller::Controller controller_;
  Watch watch_;
  Record record_;
  controller::Outcome outcome_;
  std::string text_;
  Fingerprint fingerprint_;
  std::string fingerprint_text_;
  std::int64_t now_ms_ = kBeginMs;
  std::int64_t inputs_ = 0, events_ = 0, effects_ = 0;
  double controller_ms_ = 0;
  std::vector<controller::HostEffect> to_tell_;                // in order
  std::unordered_map<std::int64_t, std::vector<Part>> parts_;  // of gangs' newest attempts; never iterated
};

}  // namespace capstan::apps::bench
