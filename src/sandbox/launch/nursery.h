// Makes first processes (launch/first_process.h) in their cgroups and namespaces, and keeps some ready ahead,
// so that a sandbox that is asked for starts with most of its work done. Each serves one sandbox and is never
// used again.
//
// Two sorts are ready: plain ones, which are told later what sandbox they are, and whole ones for each shape
// of sandbox (a spec without binds) that was asked for twice of late: down from root, filtered, and with a
// runner (launch/runner.h) in the interpreter lanes, so that nothing is left but the command. Threads: one.
// Cost: a ready one is handed over at once; making one about 1 ms.  Bounds: kShapesMax shapes, the least
// lately asked for goes.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/launch/groups.h"
#include "sandbox/launch/template_root.h"
#include "sandbox/launch/zygotes.h"

namespace capstan::sandbox {

struct RunnerProcess {
  Fd socket, pidfd;
  pid_t pid = 0;  // 0: none
};

struct Newborn {
  std::string group;
  Fd socket;  // to the first process
  Fd pidfd;
  pid_t pid = 0;
  std::uint32_t host_uid = 0;  // of this launcher's range, unused elsewhere
  bool whole = false;          // was set up as its spec says
  Fd gate;                     // in the interpreter lanes, for runners
  RunnerProcess runner;
};

inline constexpr std::size_t kShapesMax = 8;

class Nursery {
 public:
  Nursery(Groups& groups, TemplateRoots& roots) : groups_(groups), roots_(roots) {}

  // Compiles the filters. `uid_base`: the first of 65,536 user ids that belong to this launcher.
  // `library`: what warm interpreters load.  `ready`: how many to keep of a sort, by network.
  Fault start(std::uint32_t uid_base, int landlock_abi, const std::string& library, std::size_t ready,
              std::size_t ready_with_network);

  // A ready one, or a new one, perhaps whole. The caller then owns it, its processes and its cgroup.
  Fault take(const SandboxSpec& spec, Newborn& newborn);
  // Makes it whole: limits, mounts and the way down from root. `trees`: the binds, in their order.
  Fault set_up(SandboxSpec& spec, const std::vector<int>& trees, Newborn& newborn);
  // Another process for a command in the sandbox, which set_up was called for.
  Fault make_runner(const SandboxSpec& spec, const Newborn& newborn, RunnerProcess& runner);
  // Makes at most one that is missing; true if it did.
  bool refill();
  void release_uid(std::uint32_t host_uid);
  // Those that nobody will ask for, to be ended.
  std::vector<Newborn> take_dismissed() { return std::exchange(dismissed_, {}); }
  // All that are ready, to be ended; and no more.
  std::vector<Newborn> take_all();
  // Ends the warm interpreters.
  void end_zygotes() { zygotes_.end_all(); }

 private:
  struct Pool {
    SandboxSpec spec{};
    bool whole = false;
    std::size_t target = 0;
    std::uint64_t asked = 0;  // when last, in requests
    std::deque<Newborn> newborns{};
  };
  Pool* pool_of(const SandboxSpec& spec);
  bool take_from(Pool* pool, Newborn& newborn);
  Pool& add_shape(const std::string& shape, const SandboxSpec& spec);
  Fault make(const SandboxSpec& spec, Newborn& newborn);
  Fault make_for(const Pool& pool, Newborn& newborn);
  Fault give_birth(const SandboxSpec& spec, Newborn& newborn, int socket, int gate);
  std::uint32_t take_uid();

  Groups& groups_;
  TemplateRoots& roots_;
  Zygotes zygotes_;
  std::vector<sock_filter> filters_[2];  // by network
  std::size_t ready_[2] = {0, 0};        // by network
  std::map<std::string, Pool> pools_;    // by shape; plain ones by their network's number
  std::deque<std::string> seen_;         // shapes that were asked for once, of late
  std::uint64_t asked_ = 0;
  std::vector<Newborn> dismissed_;
  std::vector<bool> uids_;
  std::uint32_t uid_base_ = 0, uid_next_ = 0;
  int landlock_abi_ = 0;
};

}  // namespace capstan::sandbox
