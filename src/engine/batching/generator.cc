// Other threads only leave submissions and cancellations under the mutex; the generator's thread takes them
// between steps and is the only one that touches the Batch.
#include "engine/batching/generator.h"

#include <utility>

#include "base/assert.h"

namespace capstan::engine {

std::unique_ptr<Generator> Generator::start(Model& model, BatchOptions options) {
  return std::unique_ptr<Generator>(new Generator(model, options));
}

Generator::Generator(Model& model, BatchOptions options)
    : model_(model), options_(resolve(model, options)), thread_([this] { run(); }) {}

Generator::~Generator() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

Result<RequestId> Generator::submit(GenerationRequest request) {
  CAPSTAN_CHECK(check_request(request, model_.config(), options_.context_max));
  std::lock_guard lock(mutex_);
  if (stopping_) return fail(Code::kUnavailable, "the engine is shutting down");
  const std::size_t waiting = submitted_.size() + stats_.waiting;
  if (waiting >= static_cast<std::size_t>(options_.queue_max)) {
    return fail(Code::kExhausted, "{} requests wait already; try again later", waiting);
  }
  const RequestId id = next_id_++;
  submitted_.push_back({id, std::move(request)});
  wake_.notify_one();
  return id;
}

void Generator::cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
  wake_.notify_one();
}

BatchStats Generator::stats() const {
  std::lock_guard lock(mutex_);
  BatchStats stats = stats_;
  stats.waiting += static_cast<int>(submitted_.size());
  return stats;
}

Result<Generation> Generator::generate(GenerationRequest request) {
  CAPSTAN_ASSERT(std::this_thread::get_id() != thread_.get_id());
  struct Wait {
    std::mutex mutex;
    std::condition_variable done;
    Generation generation;
    std::string error;
    bool ended = false;
  } wait;
  auto inner = std::move(request.on_token);
  request.on_token = [&wait, inner = std::move(inner)](const TokenEvent& event) {
    if (inner) inner(event);
    std::lock_guard lock(wait.mutex);
    if (event.token >= 0) wait.generation.tokens.push_back(event.token);
    if (!event.finish) return;
    wait.generation.finish = *event.finish;
    wait.error = event.error;
    wait.ended = true;
    wait.done.notify_one();
  };
  CAPSTAN_CHECK(submit(std::move(request)));
  std::unique_lock lock(wait.mutex);
  wait.done.wait(lock, [&] { return wait.ended; });
  if (wait.generation.finish == FinishReason::kFailed) return fail(Code::kInvalid, "{}", wait.error);
  return std::move(wait.generation);
}

void Generator::run() {
  Batch batch(model_, options_);
  std::vector<Pending> submitted;
  std::vector<RequestId> cancelled;
  bool busy = false;
  for (;;) {
    submitted.clear();
    cancelled.clear();
    {
      std::unique_lock lock(mutex_);
      stats_ = batch.stats();
      wake_.wait(lock, [&] { return busy || stopping_ || !submitted_.empty() || !cancelled_.empty(); });
      std::swap(submitted, submitted_);
      std::swap(cancelled, cancelled_);
      stats_.waiting += static_cast<int>(submitted.size());
      if (stopping_) break;
    }
    for (Pending& pending : submitted) batch.enqueue(pending.id, std::move(pending.request));
    for (RequestId id : cancelled) batch.cancel(id);
    busy = batch.step();
  }
  for (Pending& pending : submitted) batch.enqueue(pending.id, std::move(pending.request));
  batch.cancel_all();
}

}  // namespace capstan::engine
