// Goal: the filter decides as libseccomp's own program from the same lists does, for every call number and
// architecture, and its rules on arguments decide as written. Method: both programs run in an interpreter of
// classic BPF here; the kernel's cache of calls that are always allowed needs instructions of a few kinds
// only.
#include "sandbox/launch/filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sandbox/launch/system_calls.h"

namespace capstan::sandbox {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kHere = AUDIT_ARCH_X86_64, kOther = AUDIT_ARCH_I386;
#else
constexpr std::uint32_t kHere = AUDIT_ARCH_AARCH64, kOther = AUDIT_ARCH_ARM;
#endif
constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM, kAllow = SECCOMP_RET_ALLOW;

std::uint32_t run(const std::vector<sock_filter>& program, const seccomp_data& data) {
  std::uint32_t a = 0, cells[BPF_MEMWORDS] = {};
  for (std::size_t at = 0; at < program.size(); ++at) {
    const sock_filter& step = program[at];
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + step.k, sizeof a);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= step.k;
        break;
      case BPF_ST:
        cells[step.k] = a;
        break;
      case BPF_LD | BPF_MEM:
        a = cells[step.k];
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += a == step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += a >= step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        at += a > step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (a & step.k) != 0 ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        ADD_FAILURE() << "an instruction that nobody expects: " << step.code;
        return 0;
    }
  }
  ADD_FAILURE() << "the program runs off its end";
  return 0;
}

std::uint32_t decide(const std::vector<sock_filter>& program, long call,
                     std::initializer_list<std::uint64_t> args = {}, std::uint32_t architecture = kHere) {
  seccomp_data data{.nr = static_cast<int>(call), .arch = architecture, .instruction_pointer = 0, .args = {}};
  std::size_t at = 0;
  for (const std::uint64_t argument : args) data.args[at++] = argument;
  return run(program, data);
}

// The slow twin: the lists alone, by libseccomp.
std::vector<sock_filter> by_libseccomp() {
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
  EXPECT_EQ(::seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), 0);
  const auto add = [&](std::uint32_t action, const char* name) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number < 0) return;
    EXPECT_EQ(::seccomp_rule_add(filter, action, number, 0), 0) << name;
  };
  for (const char* name : kRefusedCalls) add(SCMP_ACT_ERRNO(EPERM), name);
  for (const char* name : kAllowedCalls) add(SCMP_ACT_ALLOW, name);
  const int memory = ::memfd_create("filter", MFD_CLOEXEC);
  EXPECT_EQ(::seccomp_export_bpf(filter, memory), 0);
  std::vector<sock_filter> program(static_cast<std::size_t>(::lseek(memory, 0, SEEK_END)) /
                                   sizeof(sock_filter));
  EXPECT_GT(::pread(memory, program.data(), program.size() * sizeof(sock_filter), 0), 0);
  ::close(memory);
  ::seccomp_release(filter);
  return program;
}

TEST(FilterTest, DecidesAsLibseccompDoesForEveryCallOfEveryArchitecture) {
  const auto twin = by_libseccomp();
  for (const Network network : {Network::kNone, Network::kNamespace}) {
    const auto filter = compile_filter(network);
    EXPECT_LT(filter.size(), twin.size());
    // Arguments that every rule allows.
    const std::initializer_list<std::uint64_t> harmless = {AF_UNIX, SOCK_STREAM, 0};
    for (long call = 0; call < 2000; ++call) {
      if (call == SYS_personality) continue;  // 1 is refused there
      EXPECT_EQ(decide(filter, call, harmless), decide(twin, call, harmless)) << call;
    }
    for (const long call : {0x3fffffffL, 0x40000000L, 0x40000027L, 0x7fffffffL, 0xffffffffL})
      EXPECT_EQ(decide(filter, call), decide(twin, call)) << call;
    for (long call = 0; call < 500; ++call)
      EXPECT_EQ(decide(filter, call, {}, kOther), decide(twin, call, {}, kOther)) << call;
  }
}

TEST(FilterTest, RefusesByArgumentsAndLooksAtTheirLowHalvesOnly) {
  constexpr std::uint64_t kHigh = 1ull << 32;
  const auto none = compile_filter(Network::kNone), network = compile_filter(Network::kNamespace);
  const std::uint32_t family = SECCOMP_RET_ERRNO | EAFNOSUPPORT;
  for (const auto& filter : {none, network}) {
    EXPECT_EQ(decide(filter, SYS_clone, {SIGCHLD}), kAllow);
    for (const std::uint64_t flag : {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC,
                                     CLONE_NEWUTS, CLONE_NEWCGROUP})
      EXPECT_EQ(decide(filter, SYS_clone, {kHigh | flag | SIGCHLD}), kEperm) << flag;
    for (const std::uint64_t request : {TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS})
      EXPECT_EQ(decide(filter, SYS_ioctl, {0, kHigh | request}), kEperm) << request;
    EXPECT_EQ(decide(filter, SYS_ioctl, {0, TIOCGWINSZ}), kAllow);
    EXPECT_EQ(decide(filter, SYS_personality, {0x0400000}), kEperm);
    EXPECT_EQ(decide(filter, SYS_personality, {0xffffffff}), kAllow);
    EXPECT_EQ(decide(filter, SYS_socketpair, {AF_INET}), family);
    EXPECT_EQ(decide(filter, SYS_socket, {AF_UNIX, SOCK_STREAM}), kAllow);
    for (const std::uint64_t domain : {AF_NETLINK, AF_VSOCK, AF_PACKET, AF_ALG})
      EXPECT_EQ(decide(filter, SYS_socket, {kHigh | domain, SOCK_STREAM}), family) << domain;
  }
  EXPECT_EQ(decide(none, SYS_socket, {AF_INET, SOCK_STREAM}), family);
  EXPECT_EQ(decide(network, SYS_socket, {AF_INET, SOCK_STREAM | SOCK_CLOEXEC}), kAllow);
  EXPECT_EQ(decide(network, SYS_socket, {AF_INET, SOCK_RAW}), kEperm);
}

TEST(FilterTest, UsesOnlyWhatTheKernelsCacheOfAllowedCallsUnderstandsUpToItsDecision) {
  for (const sock_filter& step : compile_filter(Network::kNamespace)) {
    const bool known = step.code == (BPF_LD | BPF_W | BPF_ABS) || step.code == (BPF_RET | BPF_K) ||
                       step.code == (BPF_JMP | BPF_JA) || step.code == (BPF_JMP | BPF_JEQ | BPF_K) ||
                       step.code == (BPF_JMP | BPF_JGE | BPF_K) ||
                       step.code == (BPF_JMP | BPF_JSET | BPF_K) || step.code == (BPF_ALU | BPF_AND | BPF_K);
    EXPECT_TRUE(known) << step.code;
  }
}

}  // namespace
}  // namespace capstan::sandbox
