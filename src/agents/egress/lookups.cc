// How it works: threads start as they are needed and end when nothing waits. They are detached, because a lookup may hang
// for as long as the resolver likes.
#include "agents/egress/lookups.h"

#include <netdb.h>

#include <deque>
#include <mutex>
#include <thread>

namespace capstan::agents {

struct Lookups::State {
  Resolve resolve;
  std::mutex mutex;
  std::deque<std::pair<std::string, Done>> waiting;
  std::size_t threads = 0;
  bool over = false;

  static void serve(const std::shared_ptr<State>& state) {
    std::unique_lock lock(state->mutex);
    while (!state->waiting.empty()) {
      auto [name, done] = std::move(state->waiting.front());
      state->waiting.pop_front();
      lock.unlock();
      auto found = state->resolve(name);
      lock.lock();
      if (!state->over) done(std::move(found));  // under the lock, so that nobody is gone meanwhile
    }
    --state->threads;
  }
};

Lookups::Lookups(Resolve resolve) : state_(std::make_shared<State>()) { state_->resolve = std::move(resolve); }

Lookups::~Lookups() {
  const std::lock_guard lock(state_->mutex);
  state_->over = true;
  state_->waiting.clear();
}

bool Lookups::ask(std::string name, Done done) {
  const std::lock_guard lock(state_->mutex);
  if (state_->waiting.size() >= kLookupsWaitingMax) return false;
  state_->waiting.emplace_back(std::move(name), std::move(done));
  if (state_->threads == kLookupThreads) return true;
  ++state_->threads;
  std::thread([state = state_] { State::serve(state); }).detach();
  return true;
}

std::vector<Address> Lookups::ask_system(const std::string& name) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  std::vector<Address> out;
  if (::getaddrinfo(name.c_str(), nullptr, &hints, &found) != 0) return out;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (const auto address = Address::of(*one->ai_addr)) out.push_back(*address);
  }
  ::freeaddrinfo(found);
  return out;
}

}  // namespace capstan::agents
