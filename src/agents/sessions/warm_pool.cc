// How it works: the thread looks at the templates when one was taken, and every so often; it drops what is outdated, then makes
// what is missing, one after the other, so that a creation that found none is not held up by more than one.
#include "agents/sessions/warm_pool.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"

namespace capstan::agents {
namespace {

constexpr auto kLookEvery = std::chrono::seconds(1);

void end(const SessionPtr& session) { session->end(); }

}  // namespace

WarmPool::WarmPool(World world) : world_(std::move(world)), thread_([this] { run(); }) {}

WarmPool::~WarmPool() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    changed_.notify_all();
  }
  thread_.join();
  for (auto& [name, shelf] : shelves_) std::ranges::for_each(shelf.waiting, end);
}

SessionPtr WarmPool::take(const Template& form) {
  const std::lock_guard lock(mutex_);
  const auto shelf = shelves_.find(form.name);
  if (shelf == shelves_.end() || shelf->second.version != form.version) return nullptr;
  wanted_ = true;
  changed_.notify_all();
  while (!shelf->second.waiting.empty()) {
    SessionPtr session = std::move(shelf->second.waiting.front());
    shelf->second.waiting.pop_front();
    if (session->alive()) return session;
    end(session);
  }
  return nullptr;
}

void WarmPool::make_room() {
  const std::size_t room = world_.room();
  const std::lock_guard lock(mutex_);
  for (auto& [name, shelf] : shelves_) {
    while (count() > room && !shelf.waiting.empty()) {
      end(shelf.waiting.back());
      shelf.waiting.pop_back();
    }
  }
}

std::map<std::string, std::size_t> WarmPool::ready() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::size_t> out;
  for (const auto& [name, shelf] : shelves_) out[name] = shelf.waiting.size();
  return out;
}

std::size_t WarmPool::count() const {
  std::size_t all = 0;
  for (const auto& [name, shelf] : shelves_) all += shelf.waiting.size();
  return all;
}

void WarmPool::run() {
  std::unique_lock lock(mutex_);
  while (!leaving_) {
    wanted_ = false;
    lock.unlock();
    const std::vector<Template> forms = world_.forms();
    lock.lock();
    std::vector<SessionPtr> outdated = take_outdated(forms);
    lock.unlock();
    std::ranges::for_each(outdated, end);
    make_room();
    const bool more = refill_one(forms);
    lock.lock();
    if (!more) changed_.wait_for(lock, kLookEvery, [&] { return leaving_ || wanted_; });
  }
}

std::vector<SessionPtr> WarmPool::take_outdated(const std::vector<Template>& forms) {
  std::vector<SessionPtr> out;
  for (auto& [name, shelf] : shelves_) {
    const auto form = std::ranges::find(forms, name, &Template::name);
    const bool same = form != forms.end() && form->version == shelf.version;
    std::deque<SessionPtr> kept;
    for (SessionPtr& session : shelf.waiting) {
      const bool good = same && kept.size() < form->warm && session->alive();
      if (good)
        kept.push_back(std::move(session));
      else
        out.push_back(std::move(session));
    }
    shelf.waiting = std::move(kept);
  }
  std::erase_if(shelves_, [&](const auto& shelf) {
    return std::ranges::find(forms, shelf.first, &Template::name) == forms.end();
  });
  return out;
}

// True if it made one, so that there may be more to make.
bool WarmPool::refill_one(const std::vector<Template>& forms) {
  for (const Template& form : forms) {
    const std::size_t room = world_.room();
    {
      const std::lock_guard lock(mutex_);
      Shelf& shelf = shelves_[form.name];
      shelf.version = form.version;
      if (leaving_ || shelf.waiting.size() >= form.warm || count() >= room) continue;
    }
    auto made = world_.make(form);
    if (!made) {
      if (made.error().message != failed_)
        log_error("cannot make a warm sandbox", "template={} error=\"{}\"", form.name, made.error().message);
      failed_ = made.error().message;
      continue;
    }
    failed_.clear();
    const std::lock_guard lock(mutex_);
    shelves_[form.name].waiting.push_back(std::move(*made));
    return true;
  }
  return false;
}

}  // namespace capstan::agents
