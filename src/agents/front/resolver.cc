#include "agents/front/resolver.h"

namespace capstan::agents {

Resolver::Resolver(Places& places) : places_(places), thread_([this](std::stop_token stop) { answer(stop); }) {}

namespace {

Error leaving() { return {Code::kUnavailable, "Capstan is leaving", {}}; }

}  // namespace

void Resolver::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (Question& one : waiting_) one.loop->post([then = std::move(one.then)] { then(std::unexpected(leaving())); });
    waiting_.clear();
  }
  thread_.request_stop();
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Resolver::find(const std::string& sandbox, const std::string& owner, http::EventLoop& loop, Then then) {
  std::unique_lock lock(mutex_);
  if (stopped_ || waiting_.size() >= kWaitingMax) {
    const Error error = stopped_ ? leaving()
                                 : Error{Code::kExhausted, "too many requests look for their sandbox; try again in a moment", {}};
    lock.unlock();
    return then(std::unexpected(error));
  }
  if (known_version_ == places_.version()) {
    if (const auto known = known_.find(sandbox); known != known_.end()) {
      const Place place = known->second;
      lock.unlock();
      return then(place);
    }
  }
  waiting_.push_back({sandbox, owner, &loop, std::move(then)});
  changed_.notify_all();
}

void Resolver::answer(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    Question question = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    const std::uint64_t version = places_.version();  // before it is asked: what changes meanwhile is asked again
    Result<Place> found = places_.find(question.sandbox, question.owner);
    lock.lock();
    if (known_version_ != version || known_.size() >= kKnownMax) known_.clear();
    known_version_ = version;
    if (found) known_[question.sandbox] = *found;
    question.loop->post([then = std::move(question.then), found = std::move(found)] { then(found); });
  }
}

}  // namespace capstan::agents
