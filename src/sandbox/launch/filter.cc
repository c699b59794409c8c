// How it works: default ENOSYS, EPERM for the known dangerous, ALLOW for the rest by name; libseccomp orders
// them as a binary tree, which the kernel reduces to a bitmap for calls that are always allowed.
#include "sandbox/launch/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <span>

#include "sandbox/launch/system_calls.h"
#include "sandbox/wire.h"

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

// A call unknown to this libseccomp is skipped: it then gives ENOSYS, the default.
bool add(scmp_filter_ctx filter, std::uint32_t action, const char* name) {
  const int number = ::seccomp_syscall_resolve_name(name);
  return number == __NR_SCMP_ERROR || number < 0 || ::seccomp_rule_add(filter, action, number, 0) == 0;
}

// Rules on arguments come before libseccomp's program, written by hand: the kernel takes these arguments as
// 32 bits, and libseccomp compares 64, so that a command with a bit set above would pass a rule that refuses
// it.
class ArgumentRules {
 public:
  ArgumentRules() {
    load(offsetof(seccomp_data, arch));
    jump(BPF_JEQ, kArchitecture, 0, 0);  // another architecture: libseccomp's program kills
  }
  // Refuses if any of these bits is set.
  void refuse_bits(int call, int argument, std::uint32_t bits, int error) {
    begin(call, argument);
    jump(BPF_JSET, bits, 0, 1);
    refuse(error);
    end();
  }
  void refuse_values(int call, int argument, std::initializer_list<std::uint32_t> values, int error) {
    begin(call, argument);
    for (const std::uint32_t value : values) {
      jump(BPF_JEQ, value, 0, 1);
      refuse(error);
    }
    end();
  }
  // Refuses everything but these values of the bits in `mask`.
  void allow_values(int call, int argument, std::uint32_t mask, std::initializer_list<std::uint32_t> values,
                    int error) {
    begin(call, argument);
    code_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
    std::uint8_t left = static_cast<std::uint8_t>(values.size());
    for (const std::uint32_t value : values) jump(BPF_JEQ, value, left--, 0);
    refuse(error);
    end();
  }
  std::vector<sock_filter> finish(std::span<const sock_filter> rest) {
    if (code_.size() > 255) std::abort();  // a jump spans at most 255 instructions
    code_[1].jf = static_cast<std::uint8_t>(code_.size() - 2);
    code_.insert(code_.end(), rest.begin(), rest.end());
    return std::move(code_);
  }

 private:
  void load(std::size_t offset) {
    code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)));
  }
  void jump(std::uint16_t test, std::uint32_t value, std::uint8_t yes, std::uint8_t no) {
    code_.push_back(BPF_JUMP(static_cast<std::uint16_t>(BPF_JMP | test | BPF_K), value, yes, no));
  }
  void refuse(int error) {
    code_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)));
  }
  void begin(int call, int argument) {
    load(offsetof(seccomp_data, nr));
    begin_ = code_.size();
    jump(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 0);
    load(offsetof(seccomp_data, args) +
         static_cast<std::size_t>(argument) * 8);  // little endian: the low half
  }
  void end() { code_[begin_].jf = static_cast<std::uint8_t>(code_.size() - begin_ - 1); }

  std::vector<sock_filter> code_;
  std::size_t begin_ = 0;
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

bool fill(scmp_filter_ctx filter) {
  bool good = ::seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
              ::seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0) == 0 &&
              ::seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0;
  for (const char* name : kRefusedCalls) good = good && add(filter, SCMP_ACT_ERRNO(EPERM), name);
  for (const char* name : kAllowedCalls) good = good && add(filter, SCMP_ACT_ALLOW, name);
  return good;
}

}  // namespace

std::vector<sock_filter> compile_filter(Network network) {
  std::vector<sock_filter> program;
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
  if (filter == nullptr) return program;
  const Fd memory(::memfd_create("filter", MFD_CLOEXEC));
  if (memory && fill(filter) && ::seccomp_export_bpf(filter, memory.get()) == 0) {
    const off_t size = ::lseek(memory.get(), 0, SEEK_END);
    program.resize(static_cast<std::size_t>(size) / sizeof(sock_filter));
    if (::pread(memory.get(), program.data(), program.size() * sizeof(sock_filter), 0) != size)
      program.clear();
  }
  ::seccomp_release(filter);
  return program.empty() ? program : argument_rules(network).finish(program);
}

}  // namespace capstan::sandbox
