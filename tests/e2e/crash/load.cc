#include "load.h"

#include <unistd.h>

namespace capstan::crash {
namespace {

constexpr int kPauseUs = 15'000;

std::string yaml(const std::string& name, const Submitted& what, const std::string& starts, Prng& prng) {
  const std::string record =
      "echo \"$CAPSTAN_JOB_ID $CAPSTAN_ATTEMPT $CAPSTAN_RANK start $$\" >> " + starts + "; ";
  const std::string pause = fmt::format("sleep 0.{:02}; ", prng.below(60));
  std::string text = fmt::format("name: {}\nresources: {{cpus: 0.01}}\ngrace: 1s\n", name);
  switch (what.flavour) {
    case Flavour::kGang: {
      const bool fails_first = prng.below(4) == 0;
      const std::string end = fails_first ? "test $CAPSTAN_ATTEMPT -ge 2" : "exit 0";
      return "kind: job\n" + text +
             fmt::format("ranks: {}\nrestarts: {{budget: 1000, backoff: 20ms, backoff_max: 100ms}}\n",
                         what.processes) +
             "command: '" + record + pause + end + "'\n";
    }
    case Flavour::kTasks:
      return "kind: tasks\n" + text + fmt::format("count: {}\nretries: 1000\n", what.processes) +
             "command: '" + record + pause + "exit 0'\n";
    case Flavour::kSleeper:
      return "kind: job\n" + text +
             fmt::format("ranks: {}\nrestarts: {{budget: 1000, backoff: 20ms, backoff_max: 100ms}}\n",
                         what.processes) +
             "command: '" + record + "exec sleep 10000'\n";
  }
  return {};
}

}  // namespace

Load::Load(House& house, std::uint64_t seed)
    : house_(house), prng_(seed), thread_([this](std::stop_token stop) { run(stop); }) {}

Load::~Load() { stop(); }

void Load::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void Load::allow(int submits) {
  const std::lock_guard lock(mutex_);
  allowed_ += submits;
}

std::map<std::string, Submitted> Load::submitted() const {
  const std::lock_guard lock(mutex_);
  return submitted_;
}

void Load::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    ::usleep(kPauseUs);
    bool may_submit = false;
    {
      const std::lock_guard lock(mutex_);
      may_submit = allowed_ > 0;
    }
    if (may_submit) submit();
    if (prng_.below(8) == 0) cancel_one();
  }
}

void Load::submit() {
  Submitted what;
  const std::uint64_t draw = prng_.below(8);
  what.flavour = draw < 6 ? Flavour::kGang : draw == 6 ? Flavour::kTasks : Flavour::kSleeper;
  what.processes = prng_.between(1, 3);
  const std::string name = "crash-" + std::to_string(next_++);
  const std::string body = yaml(name, what, house_.starts_file().string(), prng_);
  const auto answer = house_.request("POST", "/api/v1/apply?source=load.yaml&base_dir=/", body);
  what.acknowledged = answer && answer->status == 200;
  if (answer && answer->status != 200 && answer->status < 500) {
    fmt::print(stderr, "crash: apply of {} was answered {}: {}\n", name, answer->status, answer->body);
  }
  const std::lock_guard lock(mutex_);
  submitted_[name] = what;
  if (what.acknowledged) --allowed_;
}

// An old sleeper, or any of the last few.
void Load::cancel_one() {
  std::string name;
  {
    const std::lock_guard lock(mutex_);
    if (submitted_.empty()) return;
    for (const auto& [candidate, what] : submitted_) {
      if (what.acknowledged && what.flavour == Flavour::kSleeper && !what.cancel_acknowledged &&
          prng_.below(2) == 0)
        name = candidate;
    }
    if (name.empty()) {
      auto it = submitted_.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(prng_.below(submitted_.size())));
      name = it->first;
    }
  }
  cancel(name);
}

bool Load::cancel(const std::string& name) {
  const auto answer = house_.request("POST", "/api/v1/workloads/" + name + "/cancel");
  const bool done = answer && answer->status >= 200 && answer->status < 300;
  const std::lock_guard lock(mutex_);
  if (done) submitted_[name].cancel_acknowledged = true;
  return done;
}

Result<void> Load::cancel_sleepers() {
  for (const auto& [name, what] : submitted()) {
    if (what.flavour != Flavour::kSleeper || what.cancel_acknowledged) continue;
    // One whose submit was not acknowledged may not exist.
    for (int tries = 0; !cancel(name) && what.acknowledged; ++tries) {
      if (tries == 100) return fail(Code::kTimeout, "{} could not be cancelled", name);
      ::usleep(50'000);
    }
  }
  return {};
}

}  // namespace capstan::crash
