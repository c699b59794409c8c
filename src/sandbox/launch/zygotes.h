// Warm Python interpreters, one per tenant, that fork a runner (launch/runner.h) each time they are asked:
// the interpreter's start (12 ms) is paid once.
//
// A zygote runs this host's /usr/bin/python3 with standard modules only, as root and outside any sandbox: no
// code of a tenant ever runs in it, only in its children, which go down from root as every first process
// does. What children share (addresses, the hash seed) they share with the same tenant's alone. Threads: one.
// Cost: a fork about 1 ms; starting a zygote about 50 ms, in which the launcher waits.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "sandbox/launch/confine.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

inline constexpr std::size_t kZygotesMax = 16;

class Zygotes {
 public:
  // Where libcapstan-python-zygote.so is, and a descriptor of the host's mount namespace.
  void start(const std::string& library, int host_mounts, std::span<const sock_filter> without_network,
             std::span<const sock_filter> with_network, int landlock_abi);
  struct Birth {
    int socket = -1, first = -1, gate = -1;  // as launch/runner.h has them
    int cgroup = -1;                         // version 2, to be born in
    std::vector<int> procs{};                // of version 1
  };
  // In the sandbox of this spec. Its process is this process's child.
  Fault make(const SandboxSpec& spec, const Birth& birth, pid_t& pid, Fd& pidfd);
  void end_all();

 private:
  struct Zygote {
    Fd socket;
    pid_t pid = -1;
    std::uint64_t used = 0;
  };
  Fault find(const std::string& tenant, Zygote*& found);
  Fault start_zygote(Zygote& zygote);
  void forget(const std::string& tenant);
  void end(Zygote& zygote);

  std::string library_;
  int host_mounts_ = -1;
  std::string greeting_;
  std::map<std::string, Zygote> zygotes_;  // by tenant
  std::uint64_t uses_ = 0;
};

}  // namespace capstan::sandbox
