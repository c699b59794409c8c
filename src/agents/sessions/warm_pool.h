// Sessions made ahead for templates that ask for it ("warm": N), so that a creation takes one and is done.
//
//   WarmPool pool({.forms = …, .make = …, .room = …});
//   if (SessionPtr session = pool.take(form)) …   // else make one; either way the pool refills in the background
//
// One that waits is nobody's: no client's code has run in it; it serves one client. One whose template changed, or that died, is
// never handed out. Threads: every method from any thread; one of its own makes them, one at a time.  Bounds: kWarmOfTemplateMax,
// and what `room` says, counted with those that wait.  Failure: what cannot be made is logged and tried again later.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agents/sessions/session.h"
#include "agents/sessions/templates.h"

namespace capstan::agents {

class WarmPool {
 public:
  struct World {
    std::function<std::vector<Template>()> forms;  // those with warm > 0, as they are now
    std::function<Result<SessionPtr>(const Template&)> make;
    std::function<std::size_t()> room;  // how many sandboxes the host may have beside its sessions
  };
  explicit WarmPool(World world);
  ~WarmPool();  // ends those that wait
  WarmPool(const WarmPool&) = delete;
  WarmPool& operator=(const WarmPool&) = delete;

  SessionPtr take(const Template& form);  // or none
  // Ends some, if more wait than the room allows.
  void make_room();
  std::map<std::string, std::size_t> ready() const;  // by the template's name

 private:
  struct Shelf {
    std::string version;  // Template::version of those that wait
    std::deque<SessionPtr> waiting;
  };
  void run();
  bool refill_one(const std::vector<Template>& forms);
  std::vector<SessionPtr> take_outdated(const std::vector<Template>& forms);  // under mutex_
  std::size_t count() const;                                                  // under mutex_

  const World world_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Shelf> shelves_;  // by the template's name
  bool wanted_ = false, leaving_ = false;
  std::string failed_;  // of the thread: the last error, said once
  std::thread thread_;
};

}  // namespace capstan::agents
