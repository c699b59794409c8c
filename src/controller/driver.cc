// How it works: public functions put tasks on one bounded queue. The loop takes what is there (a batch),
// applies it, adds what time asks for, commits, and then lets out replies, effects and events of the batch,
// in this order.
#include "controller/driver.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "controller/driver_load.h"
#include "controller/driver_rehearsal.h"
#include "controller/driver_sessions.h"
#include "controller/driver_snapshots.h"

namespace capstan::controller {
namespace {

constexpr int kRowsPerRead = 200;

template <class Clock>
std::int64_t clock_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

EventLine line_of(std::int64_t seq, std::int64_t time_ms, const Json& event) {
  Json line = Json::object({{"seq", seq}, {"time_ms", time_ms}});
  for (const auto& [key, value] : event.members()) {
    // An event may have members of these names only by mistake; the journal's numbering is the one that
    // counts.
    if (key != "seq" && key != "time_ms") line.members().emplace_back(key, value);
  }
  return {seq, line.dump()};
}

}  // namespace

class Driver::Loop {
 public:
  using Command = Driver::Command;
  struct CommandTask {
    Command command;
    std::promise<Result<Json>> answer;
  };
  struct SyncTask {
    protocol::SyncRequest request;
    Sessions::Answer answer;
  };
  struct CallTask {
    std::function<void()> call;  // after the batch is durable
  };
  using Task = std::variant<CommandTask, SyncTask, CallTask>;

  Loop(std::unique_ptr<journal::Journal> journal, DriverOptions options)
      : options_(std::move(options)),
        journal_(std::move(journal)),
        sessions_({options_.suspect_after_ms, options_.lost_after_ms, options_.long_poll_ms}),
        snapshots_(*journal_, {.every_events = options_.snapshot_every_events}) {}

  Result<void> begin() {
    CAPSTAN_CHECK(reload());
    sessions_.started(state(), options_.monotonic_ms());
    if (options_.rehearses) rehearsal_.started(state());
    last_turn_ms_ = options_.monotonic_ms();
    feed(BeginEpoch{controller_.state().epoch + 1, options_.build});
    CAPSTAN_CHECK(commit());
    publish();
    note_status();
    thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
    return {};
  }

  ~Loop() {
    thread_.request_stop();
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
    const Error gone{Code::kUnavailable, "the controller is shutting down", {}};
    for (Task& task : queue_) refuse(task, gone);
    sessions_.reset(gone);
    if (!failed_) snapshots_.finish(controller_);
  }

  bool enqueue(Task task) {
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() < kQueueMax && !thread_.get_stop_token().stop_requested()) {
        queue_.push_back(std::move(task));
        wake_.notify_one();
        return true;
      }
    }
    refuse(task, {Code::kExhausted, fmt::format("the controller is busy: {} requests wait", kQueueMax), {}});
    return false;
  }

  // Runs `call` on the loop's thread and waits for it.
  Result<void> run_there(std::function<void()> call) {
    auto done =
        std::make_shared<std::promise<void>>();  // shared by the caller and the task, whichever ends last
    auto future = done->get_future();
    auto guarded = [call = std::move(call), done] {
      call();
      done->set_value();
    };
    done.reset();
    if (!enqueue(CallTask{std::move(guarded)}))
      return fail(Code::kExhausted, "the controller is busy: {} requests wait", kQueueMax);
    try {
      future.get();
    } catch (const std::future_error&) {  // dropped: the loop has ended
      return fail(Code::kUnavailable, "the controller is shutting down");
    }
    return {};
  }

  const State& state() const { return controller_.state(); }

  Result<std::vector<EventLine>> read_events(std::int64_t since, std::int64_t limit) {
    if (since < 0) since = std::max(journal_->begin_event(), state().event_last - limit);
    std::vector<EventLine> lines;
    while (static_cast<std::int64_t>(lines.size()) < limit && since < state().event_last) {
      CAPSTAN_TRY(const auto rows, journal_->rows_after_event(since, kRowsPerRead));
      if (rows.empty()) break;
      for (const auto& row : rows) {
        CAPSTAN_TRY(const Json::Array events, events_of(row));
        std::int64_t seq = row.event_last - static_cast<std::int64_t>(events.size());
        for (const Json& event : events) {
          if (++seq <= since || static_cast<std::int64_t>(lines.size()) >= limit) continue;
          lines.push_back(line_of(seq, row.time_ms, event));
        }
      }
      since = rows.back().event_last;
    }
    return lines;
  }

  // On the loop's thread.
  Result<std::int64_t> add_follower(std::int64_t since, std::function<bool(const EventLine&)> take) {
    const std::int64_t id = ++last_follower_;
    while (since >= 0 && since < state().event_last) {
      CAPSTAN_TRY(const auto lines, read_events(since, 1'000));
      if (lines.empty()) break;
      for (const EventLine& line : lines) {
        if (!take(line)) return id;
      }
      since = lines.back().seq;
    }
    followers_[id] = std::move(take);
    return id;
  }
  void remove_follower(std::int64_t id) { followers_.erase(id); }
  void on_drained(std::function<void()> drained) { on_drained_ = std::move(drained); }

  DriverStatus status() const {
    const std::lock_guard lock(mutex_);
    DriverStatus status = status_;
    status.queue = static_cast<std::int64_t>(queue_.size());
    return status;
  }

 private:
  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::deque<Task> batch = wait(stop);
      const std::int64_t now_ms = options_.monotonic_ms();
      if (exhausted_ && now_ms >= retry_ms_ && !journal_->has_room()) retry_ms_ = now_ms + kExhaustedPauseMs;
      if (exhausted_ && now_ms < retry_ms_) {
        refuse_while_full(batch);
        continue;
      }
      turn(batch, now_ms);
    }
  }

  // What has arrived; empty if time has come for something else.
  std::deque<Task> wait(const std::stop_token& stop) {
    const std::int64_t now_ms = options_.monotonic_ms();
    std::int64_t pause_ms = 1'000;
    if (!exhausted_) {
      pause_ms = std::min(pause_ms, sessions_.next_deadline_ms() - now_ms);
      if (rehearsal_.has_answers()) pause_ms = 0;
      if (const std::int64_t next_ms = controller_.next_deadline_ms(); next_ms != kNever) {
        pause_ms = std::min(pause_ms, next_ms - options_.unix_ms());
      }
    }
    std::deque<Task> batch;
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(std::max<std::int64_t>(pause_ms, 1)),
                   [&] { return !queue_.empty() || stop.stop_requested(); });
    while (!queue_.empty() && batch.size() < kBatchMax) {
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    return batch;
  }

  void turn(std::deque<Task>& batch, std::int64_t now_ms) {
    // A suspended machine or a stalled disk is not the workers' silence.
    if (now_ms - last_turn_ms_ > 5'000) sessions_.forgive(now_ms - last_turn_ms_);
    last_turn_ms_ = now_ms;
    std::vector<std::pair<std::promise<Result<Json>>, Result<Json>>> answers;
    const auto feed_one = [this](Command command) { feed(std::move(command)); };
    for (Task& task : batch) {
      if (auto* command = std::get_if<CommandTask>(&task)) {
        answers.emplace_back(std::move(command->answer), feed(std::move(command->command)));
      } else if (auto* sync = std::get_if<SyncTask>(&task)) {
        sessions_.take(state(), std::move(sync->request), std::move(sync->answer), now_ms, feed_one);
      }
    }
    if (controller_.next_deadline_ms() <= options_.unix_ms()) feed(Tick{});
    sessions_.detect(state(), now_ms, feed_one);
    rehearsal_.answer(state(), feed_one);

    if (const auto committed = commit(); !committed) {
      fail_batch(committed.error(), now_ms);
      for (auto& [promise, answer] : answers) promise.set_value(std::unexpected(committed.error()));
      for (Task& task : batch) {
        if (auto* call = std::get_if<CallTask>(&task)) call->call();  // reads see the reloaded, durable state
      }
      return;
    }
    note_status();
    for (auto& [promise, answer] : answers) promise.set_value(std::move(answer));
    sessions_.push(effects_);
    if (options_.rehearses) rehearsal_.take(state(), effects_);
    effects_.clear();
    publish();
    for (Task& task : batch) {
      if (auto* call = std::get_if<CallTask>(&task)) call->call();
    }
    if (controller_.is_drained() && on_drained_) std::exchange(on_drained_, nullptr)();
    sessions_.answer_due(state(), controller_.is_drained(), now_ms);
    snapshots_.turn(controller_, now_ms);
  }

  Result<Json> feed(Command command) {
    Input input{options_.unix_ms(), std::move(command)};
    Outcome outcome = controller_.apply(input);
    if (!outcome.events.empty()) {
      Json events = Json::array();
      std::int64_t seq = state().event_last - static_cast<std::int64_t>(outcome.events.size());
      for (const Json& event : outcome.events) {
        lines_.push_back(followers_.empty() ? EventLine{} : line_of(seq + 1, outcome.time_ms, event));
        ++seq;
      }
      for (Json& event : outcome.events) events.push_back(std::move(event));
      rows_.push_back({journal_->last_seq() + static_cast<std::int64_t>(rows_.size()) + 1, outcome.time_ms,
                       options_.build, input.to_json().dump(), events.dump(), state().event_last});
    }
    std::move(outcome.effects.begin(), outcome.effects.end(), std::back_inserter(effects_));
    return std::move(outcome.answer);
  }

  Result<void> commit() {
    if (rows_.empty()) return {};
    const auto began = std::chrono::steady_clock::now();
    const auto appended = journal_->append(rows_);
    const auto micros =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began)
            .count();
    const std::lock_guard lock(mutex_);
    ++status_.appends;
    status_.append_micros += micros;
    status_.append_micros_max = std::max<std::int64_t>(status_.append_micros_max, micros);
    if (!appended) return appended;
    if (exhausted_) log_info("the journal's disk has room again");
    exhausted_ = false;
    status_.rows += static_cast<std::int64_t>(rows_.size());
    for (const journal::Row& row : rows_) snapshots_.appended(bytes_of(row));
    rows_.clear();
    return {};
  }

  Result<void> reload() {
    controller_ = Controller();  // first: there may not be room for two
    CAPSTAN_TRY(Loaded loaded, load(*journal_));
    controller_ = std::move(loaded.controller);
    snapshots_.started(loaded);
    return {};
  }

  // Nothing of the batch happened: back to what the journal says.
  void fail_batch(const Error& error, std::int64_t now_ms) {
    rows_.clear();
    effects_.clear();
    lines_.clear();
    if (error.code != Code::kExhausted) return fatal(error);
    if (!exhausted_)
      log_error("nothing is acknowledged until there is room; running ranks go on", "why={}", error.message);
    exhausted_ = true;
    retry_ms_ = now_ms + kExhaustedPauseMs;
    if (const auto reloaded = reload(); !reloaded) return fatal(reloaded.error());
    sessions_.reset(error);
    sessions_.started(state(), now_ms);
    if (options_.rehearses) rehearsal_.started(state());
    note_status();
  }

  void refuse_while_full(std::deque<Task>& batch) {
    const Error error{Code::kExhausted, "the disk of the data directory is full; free space on it", {}};
    for (Task& task : batch) {
      if (auto* call = std::get_if<CallTask>(&task)) {
        call->call();
      } else {
        refuse(task, error);
      }
    }
  }

  static void refuse(Task& task, const Error& error) {
    if (auto* command = std::get_if<CommandTask>(&task)) command->answer.set_value(std::unexpected(error));
    if (auto* sync = std::get_if<SyncTask>(&task)) sync->answer(std::unexpected(error));
  }

  void fatal(const Error& error) {
    log_error("the journal failed; the controller ends, ranks go on", "why={}", error.message);
    failed_ = true;  // what is in memory is more than what is durable: it must not be kept
    if (options_.on_fatal) return options_.on_fatal(error);
    std::_Exit(1);
  }

  void publish() {
    for (const EventLine& line : lines_) {
      if (line.seq == 0) continue;  // nobody followed when it was made
      for (auto at = followers_.begin(); at != followers_.end();)
        at = at->second(line) ? std::next(at) : followers_.erase(at);
    }
    lines_.clear();
  }

  void note_status() {
    const std::lock_guard lock(mutex_);
    status_.epoch = state().epoch;
    status_.events = state().event_last;
    status_.disk_full = exhausted_;
    status_.snapshots = snapshots_.status();
  }

  DriverOptions options_;
  std::unique_ptr<journal::Journal> journal_;
  Controller controller_;
  Sessions sessions_;
  Rehearsal rehearsal_;
  Snapshots snapshots_;

  // Of the batch in progress.
  std::vector<journal::Row> rows_;
  std::vector<HostEffect> effects_;
  std::vector<EventLine> lines_;

  std::map<std::int64_t, std::function<bool(const EventLine&)>> followers_;
  std::int64_t last_follower_ = 0;
  std::function<void()> on_drained_;
  std::int64_t last_turn_ms_ = 0;
  std::int64_t retry_ms_ = 0;
  bool exhausted_ = false;
  bool failed_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_;
  DriverStatus status_;
  std::jthread thread_;
};

Driver::Driver(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Driver::~Driver() = default;

Result<std::unique_ptr<Driver>> Driver::start(std::unique_ptr<journal::Journal> journal,
                                              DriverOptions options) {
  if (!options.unix_ms) options.unix_ms = clock_ms<std::chrono::system_clock>;
  if (!options.monotonic_ms) options.monotonic_ms = clock_ms<std::chrono::steady_clock>;
  auto loop = std::make_unique<Loop>(std::move(journal), std::move(options));
  CAPSTAN_CHECK(loop->begin());
  return std::unique_ptr<Driver>(new Driver(std::move(loop)));
}

std::future<Result<Json>> Driver::submit(Command command) {
  std::promise<Result<Json>> promise;
  auto future = promise.get_future();
  loop_->enqueue(Loop::CommandTask{std::move(command), std::move(promise)});
  return future;
}

void Driver::sync(protocol::SyncRequest request, std::function<void(Result<protocol::SyncAnswer>)> answer) {
  loop_->enqueue(Loop::SyncTask{std::move(request), std::move(answer)});
}

Result<void> Driver::read(const std::function<void(const State&)>& look) {
  return loop_->run_there([&] { look(loop_->state()); });
}

Result<std::vector<EventLine>> Driver::events(std::int64_t since, int limit) {
  Result<std::vector<EventLine>> lines;
  CAPSTAN_CHECK(loop_->run_there([&] { lines = loop_->read_events(since, limit); }));
  return lines;
}

Result<std::int64_t> Driver::follow(std::int64_t since, std::function<bool(const EventLine&)> take) {
  Result<std::int64_t> id = 0;
  CAPSTAN_CHECK(loop_->run_there([&] { id = loop_->add_follower(since, std::move(take)); }));
  return id;
}

void Driver::unfollow(std::int64_t id) {
  loop_->enqueue(Loop::CallTask{[this, id] { loop_->remove_follower(id); }});
}

Result<void> Driver::drain(std::function<void()> drained) {
  CAPSTAN_CHECK(loop_->run_there([&] { loop_->on_drained(std::move(drained)); }));
  const auto answer = submit(Drain{}).get();
  if (!answer) return std::unexpected(answer.error());
  return {};
}

DriverStatus Driver::status() const { return loop_->status(); }

}  // namespace capstan::controller
