// Names to addresses, away from the event loop: the system's resolver blocks.
//
//   lookups.ask("pypi.org", [](std::vector<Address> found) { … });   // called on a thread of its own; empty: unknown
//
// Threads: every method from any thread.  Bounds: kLookupThreads at once, kLookupsWaitingMax waiting; beyond it ask() says no.
// After the destructor no callback is called; a lookup that hangs holds up nobody.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agents/egress/address.h"

namespace capstan::agents {

inline constexpr std::size_t kLookupThreads = 4, kLookupsWaitingMax = 256;

class Lookups {
 public:
  using Resolve = std::function<std::vector<Address>(const std::string& name)>;  // may block
  using Done = std::function<void(std::vector<Address>)>;
  explicit Lookups(Resolve resolve = ask_system);
  ~Lookups();
  Lookups(const Lookups&) = delete;
  Lookups& operator=(const Lookups&) = delete;

  [[nodiscard]] bool ask(std::string name, Done done);
  static std::vector<Address> ask_system(const std::string& name);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the threads, which may outlive this object while a lookup hangs
};

}  // namespace capstan::agents
