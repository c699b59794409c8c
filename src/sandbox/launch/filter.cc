// How it works: the lists become one action for each call number, runs of the same action become intervals,
// and the program is a binary search over their starts. That is a fifth of what libseccomp generates, and the
// kernel translates a filter anew for each sandbox. Only comparisons are used, so that the kernel still keeps
// a bitmap of calls that are always allowed. libseccomp knows the numbers here, and generates the program
// that this one must agree with in filter_test.cc.
#include "sandbox/launch/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <span>

#include "sandbox/launch/system_calls.h"

namespace capstan::sandbox {
namespace {

constexpr std::uint32_t kNamespaceFlags =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox's filter knows x86-64 and arm64"
#endif

constexpr std::uint32_t kNumbersMax = 1024;         // beyond any call of any kernel so far
constexpr std::uint32_t kX32Begin = 0x40000000;     // x86-64 only
constexpr std::uint32_t kSkippedCall = 0xffffffff;  // what a tracer leaves of a call

// Rules on the arguments of one call each. The kernel takes these arguments as 32 bits, and libseccomp
// compares 64, so that a command with a bit set above would pass a rule that refuses it: only the low half is
// looked at.
class ArgumentRules {
 public:
  struct Rule {
    std::uint32_t call = 0;
    std::vector<sock_filter> code{};
  };
  // Refuses if any of these bits is set.
  void refuse_bits(int call, int argument, std::uint32_t bits, int error) {
    std::vector<sock_filter>& code = load(call, argument);
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1));
    code.push_back(refusal(error));
  }
  void refuse_values(int call, int argument, std::initializer_list<std::uint32_t> values, int error) {
    std::vector<sock_filter>& code = load(call, argument);
    for (const std::uint32_t value : values) {
      code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
      code.push_back(refusal(error));
    }
  }
  // Refuses everything but these values of the bits in `mask`.
  void allow_values(int call, int argument, std::uint32_t mask, std::initializer_list<std::uint32_t> values,
                    int error) {
    std::vector<sock_filter>& code = load(call, argument);
    if (mask != ~0u) code.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
    std::uint8_t left = static_cast<std::uint8_t>(values.size());
    for (const std::uint32_t value : values)
      code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, left--, 0));
    code.push_back(refusal(error));
  }
  const std::vector<Rule>& rules() const { return rules_; }

 private:
  // Several rules on one call are checked in their order.
  std::vector<sock_filter>& load(int call, int argument) {
    const auto number = static_cast<std::uint32_t>(call);
    if (rules_.empty() || rules_.back().call != number) rules_.push_back({.call = number});
    const std::size_t offset = offsetof(seccomp_data, args) + static_cast<std::size_t>(argument) * 8;
    rules_.back().code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)));
    return rules_.back().code;
  }
  static sock_filter refusal(int error) {
    return BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error));
  }
  std::vector<Rule> rules_;
};

ArgumentRules argument_rules(Network network) {
  ArgumentRules rules;
  rules.refuse_bits(SYS_clone, 0, kNamespaceFlags, EPERM);
  rules.refuse_values(SYS_ioctl, 1, {TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS}, EPERM);
  rules.allow_values(SYS_personality, 0, ~0u, {0, 0xffffffff, ADDR_NO_RANDOMIZE}, EPERM);
  rules.allow_values(SYS_socketpair, 0, ~0u, {AF_UNIX}, EAFNOSUPPORT);
  if (network == Network::kNone) {
    rules.allow_values(SYS_socket, 0, ~0u, {AF_UNIX}, EAFNOSUPPORT);
  } else {
    rules.allow_values(SYS_socket, 0, ~0u, {AF_UNIX, AF_INET, AF_INET6}, EAFNOSUPPORT);
    rules.allow_values(SYS_socket, 1, 0xf, {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}, EPERM);
  }
  return rules;
}

// From this number on, up to the next interval's.
struct Interval {
  std::uint32_t begin = 0;
  std::uint32_t action = 0;         // what the filter returns
  const ArgumentRules::Rule* rule;  // if there is one, it comes first
};

void set(std::vector<Interval>& calls, const char* name, std::uint32_t action) {
  const int number = ::seccomp_syscall_resolve_name(name);
  // Unknown to this libseccomp, or not on this architecture: it gives ENOSYS, as everything unknown.
  if (number >= 0 && number < static_cast<int>(kNumbersMax))
    calls[static_cast<std::size_t>(number)].action = action;
}

std::vector<Interval> intervals(const ArgumentRules& rules) {
  std::vector<Interval> calls(kNumbersMax);
  for (std::uint32_t i = 0; i < kNumbersMax; ++i) calls[i] = {i, SECCOMP_RET_ERRNO | ENOSYS, nullptr};
  for (const char* name : kRefusedCalls) set(calls, name, SECCOMP_RET_ERRNO | EPERM);
  for (const char* name : kAllowedCalls) set(calls, name, SECCOMP_RET_ALLOW);
  for (const auto& rule : rules.rules()) {
    if (calls[rule.call].action == SECCOMP_RET_ALLOW) calls[rule.call].rule = &rule;
  }
#if defined(__x86_64__)
  calls.push_back({kX32Begin, SECCOMP_RET_KILL_PROCESS, nullptr});
  calls.push_back({kSkippedCall, SECCOMP_RET_ERRNO | ENOSYS, nullptr});
#endif
  std::vector<Interval> merged;
  for (const Interval& call : calls) {
    const bool same = !merged.empty() && merged.back().action == call.action &&
                      merged.back().rule == nullptr && call.rule == nullptr;
    if (!same) merged.push_back(call);
  }
  return merged;
}

// The binary search over intervals. Those without a rule of their own need no code: the comparison before
// them jumps to the one place that returns their action.
class Search {
 public:
  explicit Search(std::vector<sock_filter>& code) : code_(code) {}

  void add(std::span<const Interval> list) {
    if (list.size() == 1) return leaf(list[0]);
    const auto lower = list.first(list.size() / 2), upper = list.subspan(list.size() / 2);
    const std::size_t node = code_.size();
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, upper[0].begin, 0, 0));
    if (is_plain(lower))
      jumps_.push_back({node, lower[0].action, false});
    else
      add(lower);
    if (is_plain(upper)) {
      jumps_.push_back({node, upper[0].action, true});
    } else {
      code_[node].jt = distance(node, code_.size());
      add(upper);
    }
  }

  void finish() {
    std::map<std::uint32_t, std::size_t> places;
    for (const Jump& jump : jumps_) {
      const auto [place, missing] = places.try_emplace(jump.action, code_.size());
      if (missing) code_.push_back(BPF_STMT(BPF_RET | BPF_K, jump.action));
      (jump.if_true ? code_[jump.node].jt : code_[jump.node].jf) = distance(jump.node, place->second);
    }
  }

 private:
  struct Jump {
    std::size_t node = 0;
    std::uint32_t action = 0;
    bool if_true = false;
  };

  static bool is_plain(std::span<const Interval> list) { return list.size() == 1 && list[0].rule == nullptr; }
  void leaf(const Interval& interval) {
    code_.insert(code_.end(), interval.rule->code.begin(), interval.rule->code.end());
    code_.push_back(BPF_STMT(BPF_RET | BPF_K, interval.action));
  }
  static std::uint8_t distance(std::size_t from, std::size_t to) {
    if (to - from - 1 > 255) std::abort();  // the program, which no input changes, grew out of a jump's span
    return static_cast<std::uint8_t>(to - from - 1);
  }

  std::vector<sock_filter>& code_;
  std::vector<Jump> jumps_;
};

}  // namespace

std::vector<sock_filter> compile_filter(Network network) {
  const ArgumentRules rules = argument_rules(network);
  std::vector<sock_filter> code = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  Search search(code);
  search.add(intervals(rules));
  search.finish();
  return code;
}

}  // namespace capstan::sandbox
