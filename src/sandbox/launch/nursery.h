// Makes first processes (launch/first_process.h) in their cgroups and namespaces, and keeps some ready ahead,
// so that a sandbox that is asked for starts with most of its work done. Each serves one sandbox and is never
// used again.
//
// Threads: one.  Cost: a ready one is handed over at once; making one about 1 ms.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "sandbox/launch/groups.h"
#include "sandbox/launch/template_root.h"
#include "sandbox/launch/zygotes.h"

namespace capstan::sandbox {

struct Newborn {
  std::string group;
  Fd socket;  // to the first process
  Fd pidfd;
  pid_t pid = 0;
  std::uint32_t host_uid = 0;  // of this launcher's range, unused elsewhere
};

// What a first process must be made for; the rest is told to it later.
struct Kind {
  bool python = false;
  Network network = Network::kNone;
  std::string template_root{};
  std::string tenant{};  // of a warm interpreter
  auto operator<=>(const Kind&) const = default;
};

inline constexpr std::size_t kTemplatesReadyMax = 16;

class Nursery {
 public:
  Nursery(Groups& groups, TemplateRoots& roots) : groups_(groups), roots_(roots) {}

  // Compiles the filters. `uid_base`: the first of 65,536 user ids that belong to this launcher.
  // `library`: what warm interpreters load.
  Fault start(std::uint32_t uid_base, int landlock_abi, const std::string& library);
  // How many to keep ready of a kind.
  void keep(const Kind& kind, std::size_t count) { kinds_[kind].target = count; }
  // As many of a template's as of the default root, for at most kTemplatesReadyMax templates; others are made
  // on demand.
  void keep_like_default(const Kind& kind);

  // A ready one, or a new one. The caller then owns it, its process and its cgroup.
  Fault take(const Kind& kind, Newborn& newborn);
  // Makes at most one that is missing; true if it did.
  bool refill();
  void release_uid(std::uint32_t host_uid);
  // Ends the warm interpreters.
  void end_zygotes() { zygotes_.end_all(); }
  // All that are ready, to be ended.
  std::vector<Newborn> take_all();

 private:
  struct Ready {
    std::size_t target = 0;
    std::deque<Newborn> newborns;
  };
  Fault make(const Kind& kind, Newborn& newborn);
  Fault give_birth(const Kind& kind, Newborn& newborn, int socket, int cgroup, std::vector<int> procs);
  std::uint32_t take_uid();

  Groups& groups_;
  TemplateRoots& roots_;
  Zygotes zygotes_;
  std::vector<sock_filter> filters_[2];  // by network
  std::map<Kind, Ready> kinds_;
  std::vector<bool> uids_;
  std::uint32_t uid_base_ = 0, uid_next_ = 0;
  int landlock_abi_ = 0;
};

}  // namespace capstan::sandbox
