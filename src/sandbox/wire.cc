// How it works: a packet starts with one byte that says whether the body follows or lies in the last
// descriptor.
#include "sandbox/wire.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace capstan::sandbox {

const char* ended_name(Ended ended) {
  switch (ended) {
    case Ended::kExited:
      return "exited";
    case Ended::kSignalled:
      return "signalled";
    case Ended::kMemory:
      return "memory";
    case Ended::kWallTime:
      return "wall_time";
    case Ended::kCpuTime:
      return "cpu_time";
    case Ended::kOutput:
      return "output";
    case Ended::kKilled:
      return "killed";
    case Ended::kLost:
      return "lost";
  }
  return "unknown";
}

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Packer& Packer::texts(const std::vector<std::string>& values) {
  u32(static_cast<std::uint32_t>(values.size()));
  for (const auto& value : values) text(value);
  return *this;
}

Packer& Packer::sandbox(const SandboxSpec& spec) {
  u32(static_cast<std::uint32_t>(spec.lane)).u32(static_cast<std::uint32_t>(spec.network));
  const BoxLimits& limits = spec.limits;
  i64(limits.memory_bytes).i64(limits.milli_cpus).i64(limits.pids);
  i64(limits.tmpfs_bytes).i64(limits.tmpfs_inodes).i64(limits.open_files);
  text(spec.template_root).text(spec.tenant).text(spec.hostname);
  u32(static_cast<std::uint32_t>(spec.binds.size()));
  for (const auto& bind : spec.binds) text(bind.host_path).text(bind.path).u32(bind.writable);
  return u32(spec.uid).u32(spec.host_uid).u32(spec.long_lived).u32(spec.listen_port);
}

SandboxSpec Unpacker::sandbox() {
  SandboxSpec spec;
  spec.lane = static_cast<Lane>(u32());
  spec.network = static_cast<Network>(u32());
  BoxLimits& limits = spec.limits;
  limits.memory_bytes = i64();
  limits.milli_cpus = i64();
  limits.pids = i64();
  limits.tmpfs_bytes = i64();
  limits.tmpfs_inodes = i64();
  limits.open_files = i64();
  spec.template_root = text();
  spec.tenant = text();
  spec.hostname = text();
  const std::uint32_t binds = u32();
  for (std::uint32_t i = 0; i < binds && good_; ++i) {
    Bind bind{.host_path = text(), .path = text()};
    bind.writable = u32() != 0;
    spec.binds.push_back(std::move(bind));
  }
  spec.uid = u32();
  spec.host_uid = u32();
  spec.long_lived = u32() != 0;
  spec.listen_port = static_cast<std::uint16_t>(u32());
  return spec;
}

Packer& Packer::command(const CommandSpec& spec) {
  texts(spec.argv).texts(spec.env).text(spec.cwd).text(spec.code).u32(spec.terminal);
  const CommandLimits& limits = spec.limits;
  return i64(limits.wall_ms)
      .i64(limits.cpu_ms)
      .i64(limits.output_bytes)
      .i64(limits.output_bytes_max)
      .i64(limits.memory_bytes);
}

CommandSpec Unpacker::command() {
  CommandSpec spec;
  spec.argv = texts();
  spec.env = texts();
  spec.cwd = text();
  spec.code = text();
  spec.terminal = u32() != 0;
  CommandLimits& limits = spec.limits;
  limits.wall_ms = i64();
  limits.cpu_ms = i64();
  limits.output_bytes = i64();
  limits.output_bytes_max = i64();
  limits.memory_bytes = i64();
  return spec;
}

Packer& Packer::result(const CommandResult& result) {
  u32(static_cast<std::uint32_t>(result.ended)).i64(result.exit_code).i64(result.signal);
  i64(result.usage.cpu_us).i64(result.usage.wall_us);
  return i64(result.usage.memory_bytes).i64(result.usage.memory_peak_bytes);
}

CommandResult Unpacker::result() {
  CommandResult result;
  result.ended = static_cast<Ended>(u32());
  result.exit_code = static_cast<int>(i64());
  result.signal = static_cast<int>(i64());
  result.usage.cpu_us = i64();
  result.usage.wall_us = i64();
  result.usage.memory_bytes = i64();
  result.usage.memory_peak_bytes = i64();
  return result;
}

std::string Unpacker::text() {
  const std::uint32_t size = u32();
  if (!good_ || rest_.size() < size) {
    good_ = false;
    return {};
  }
  std::string value(rest_.substr(0, size));
  rest_.remove_prefix(size);
  return value;
}

std::vector<std::string> Unpacker::texts() {
  const std::uint32_t count = u32();
  std::vector<std::string> values;
  for (std::uint32_t i = 0; i < count && good_; ++i) values.push_back(text());
  return values;
}

bool send_message(int socket, const std::string& bytes, const std::vector<int>& fds) {
  if (bytes.size() > kMessageBytesMax || fds.size() >= kMessageFdsMax) {
    errno = EMSGSIZE;
    return false;
  }
  char place = bytes.size() > kInlineBytesMax ? 'm' : 'i';
  Fd memory;
  std::vector<int> all = fds;
  if (place == 'm') {
    memory.reset(::memfd_create("message", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory || ::write(memory.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      return false;
    all.push_back(memory.get());
  }
  iovec parts[2] = {{&place, 1}, {const_cast<char*>(bytes.data()), place == 'i' ? bytes.size() : 0}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMessageFdsMax)];
  msghdr header{};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  if (!all.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * all.size());
    std::memset(control, 0, header.msg_controllen);
    cmsghdr* message = CMSG_FIRSTHDR(&header);
    message->cmsg_level = SOL_SOCKET;
    message->cmsg_type = SCM_RIGHTS;
    message->cmsg_len = CMSG_LEN(sizeof(int) * all.size());
    std::memcpy(CMSG_DATA(message), all.data(), sizeof(int) * all.size());
  }
  for (;;) {
    if (::sendmsg(socket, &header, MSG_NOSIGNAL) >= 0) return true;
    if (errno != EINTR) return false;
  }
}

namespace {

// The body of a message that lies in a memfd.
bool read_memory(int fd, std::string& bytes) {
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (size < 0 || static_cast<std::size_t>(size) > kMessageBytesMax) return false;
  bytes.resize(static_cast<std::size_t>(size));
  return ::pread(fd, bytes.data(), bytes.size(), 0) == size;
}

}  // namespace

int receive_message(int socket, Message& message) {
  static thread_local char body[kInlineBytesMax + 1];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMessageFdsMax)];
  iovec part{body, sizeof body};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t count = 0;
  do {
    count = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return errno == ECONNRESET ? 0 : -1;
  message.fds.clear();
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t fds = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < fds; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
      message.fds.emplace_back(fd);
    }
  }
  if (count == 0) return 0;
  if (body[0] == 'i') {
    message.bytes.assign(body + 1, static_cast<std::size_t>(count) - 1);
    return 1;
  }
  if (message.fds.empty() || !read_memory(message.fds.back().get(), message.bytes)) {
    errno = EBADMSG;
    return -1;
  }
  message.fds.pop_back();
  return 1;
}

}  // namespace capstan::sandbox
