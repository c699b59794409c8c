// The messages between a launcher, those who use it, and the first process of each sandbox: one
// SOCK_SEQPACKET packet each, with descriptors. Both ends are the same build, so there is no versioning.
//
// A message beyond kInlineBytesMax travels in a sealed memfd. Nothing here needs more than libc: the launcher
// is a small static program. Threads: values.  Failure: false with errno set; a malformed message leaves
// Unpacker::good() false and gives zeros.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sandbox/spec.h"

namespace capstan::sandbox {

inline constexpr std::size_t kInlineBytesMax = 32 << 10;
inline constexpr std::size_t kMessageBytesMax = 16 << 20;
inline constexpr std::size_t kMessageFdsMax = 64;

// An owned descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

enum class MessageKind : std::uint32_t {
  // from a user of the launcher
  kHello,   // Hello
  kCreate,  // box, SandboxSpec; in a short-lived one also command and CommandSpec. Descriptors: binds, then
            // stdio
  kAdopt,   // box, command, CommandSpec: from now on the limits in time are these
  kExec,    // box, command, CommandSpec. Descriptors: stdio
  kSignal,  // box, command, signal
  kKill,    // box, command (0: the whole box, which then goes)
  kFreeze,  // box
  kThaw,    // box
  kUsage,   // box
  // to the first process of a sandbox
  kSetup,
  kSpawn,
  // answers of the launcher, and of a first process
  kReady,    // hello was accepted (capabilities), a box exists (descriptors: its root, its listener if it
             // has one), or a request was done
  kRefused,  // text
  kStarted,  // descriptors: the warm process's pipes, if it has its own
  kEnded,    // box, command, CommandResult without its output
  kGone,     // box: nothing of it is left but its cgroups' directories
};

class Packer {
 public:
  explicit Packer(MessageKind kind) { u32(static_cast<std::uint32_t>(kind)); }
  Packer& u32(std::uint32_t value) { return raw(&value, sizeof value); }
  Packer& i64(std::int64_t value) { return raw(&value, sizeof value); }
  Packer& text(std::string_view value) {
    u32(static_cast<std::uint32_t>(value.size()));
    return raw(value.data(), value.size());
  }
  Packer& texts(const std::vector<std::string>& values);
  Packer& sandbox(const SandboxSpec& spec);
  Packer& command(const CommandSpec& spec);     // without its descriptors
  Packer& result(const CommandResult& result);  // without its output
  const std::string& bytes() const { return bytes_; }

 private:
  Packer& raw(const void* data, std::size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
    return *this;
  }
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}
  bool good() const { return good_; }
  MessageKind kind() { return static_cast<MessageKind>(u32()); }
  std::uint32_t u32() { return raw<std::uint32_t>(); }
  std::int64_t i64() { return raw<std::int64_t>(); }
  std::string text();
  std::vector<std::string> texts();
  SandboxSpec sandbox();
  CommandSpec command();
  CommandResult result();

 private:
  template <class T>
  T raw() {
    T value{};
    if (rest_.size() < sizeof value) {
      good_ = false;
      return value;
    }
    __builtin_memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }
  std::string_view rest_;
  bool good_ = true;
};

struct Message {
  std::string bytes;
  std::vector<Fd> fds;
};

// Sends one message; the descriptors stay the caller's. False with errno EAGAIN if the socket is full.
bool send_message(int socket, const std::string& bytes, const std::vector<int>& fds = {});
// Receives one; 1: a message, 0: the peer is gone, -1 with errno (EAGAIN: nothing there).
int receive_message(int socket, Message& message);

}  // namespace capstan::sandbox
