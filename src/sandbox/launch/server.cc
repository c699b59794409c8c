// How it works: level-triggered epoll over the user's socket and two descriptors per sandbox. Making
// sandboxes ahead is what it does when nothing else waits, one at a time.
#include "sandbox/launch/server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>

#include "sandbox/launch/boxes.h"
#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {

constexpr std::uint64_t kUserTag = ~std::uint64_t{0};
constexpr int kEventsMax = 64;
constexpr int kLockTries = 500, kLockRetryUs = 10'000;

std::int64_t now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

class Server {
 public:
  explicit Server(int socket)
      : socket_(socket),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        nursery_(groups_, roots_),
        boxes_(
            groups_, roots_, nursery_,
            [this](const std::string& bytes, const std::vector<int>& fds) { send(bytes, fds); },
            [this](int fd, std::uint64_t tag) { watch(fd, tag); }) {}

  int run() {
    watch(socket_.get(), kUserTag);
    if (!greet()) return 1;
    while (socket_ || !boxes_.empty()) turn();
    groups_.remove_bases();
    return 0;
  }

 private:
  // The first message says where cgroups are and what to do without.
  bool greet() {
    Message message;
    if (receive_message(socket_.get(), message) != 1) return false;
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kHello) return false;
    const Fault fault = start(in);
    if (fault != nullptr) {
      const std::string text = std::string("cannot ") + fault + ": " + std::strerror(errno);
      send_message(socket_.get(), Packer(MessageKind::kRefused).i64(0).u32(0).text(text).bytes());
      return false;
    }
    ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    return send_message(socket_.get(), Packer(MessageKind::kReady).i64(0).bytes());
  }

  // One launcher per instance: the name is free as soon as the other is dead, and it goes on for a while
  // after its user.
  bool lock(const std::string& instance) {
    lock_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "capstan-sandbox-" + instance;  // abstract: sun_path[0] stays 0
    if (!lock_ || name.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    for (int tried = 0; tried < kLockTries; ++tried) {
      if (::bind(lock_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0) return true;
      ::usleep(kLockRetryUs);
    }
    return false;
  }

  Fault start(Unpacker& in) {
    if (!lock(in.text())) return "be the only launcher of this instance";
    const std::uint32_t bases = in.u32();
    for (std::uint32_t i = 0; i < bases; ++i) {
      const int version = static_cast<int>(in.u32());
      std::vector<std::string> controllers = in.texts();
      if (!groups_.add_base(version, std::move(controllers), in.text())) return "open a cgroup directory";
    }
    const std::uint32_t uid_base = in.u32();
    const bool landlock = in.u32() != 0;
    const std::uint32_t ready = in.u32();
    const std::uint32_t ready_with_network = in.u32();
    const std::string library = in.text();
    if (!in.good()) return "understand the greeting";
    if (!groups_.sweep()) return "clear away what an earlier launcher left";
    if (const Fault fault = roots_.start()) return fault;
    return nursery_.start(uid_base, landlock ? kernel::landlock_abi() : 0, library, ready,
                          ready_with_network);
  }

  void turn() {
    const std::int64_t wake_us = boxes_.tend(now_us());
    if (!socket_ && boxes_.empty()) return;
    int wait_ms = wake_us < 0 ? -1 : static_cast<int>((wake_us + 999) / 1000);
    if (!outbox_.empty()) wait_ms = wait_ms < 0 ? 1 : std::min(wait_ms, 1);
    if (idle_work_) wait_ms = 0;
    epoll_event events[kEventsMax];
    const int count = ::epoll_wait(epoll_.get(), events, kEventsMax, wait_ms);
    for (int i = 0; i < count; ++i) dispatch(events[i].data.u64);
    flush();
    idle_work_ = socket_ && (count > 0 || idle_work_);
    if (idle_work_ && count <= 0) idle_work_ = nursery_.refill();
    for (auto& newborn : nursery_.take_dismissed()) boxes_.bury(std::move(newborn));
  }

  void dispatch(std::uint64_t tag) {
    if (tag == kUserTag) return from_user();
    const std::uint64_t serial = tag >> 2;
    switch (static_cast<Watched>(tag & 3)) {
      case Watched::kSocket:
        return boxes_.on_socket(serial);
      case Watched::kDeath:
        return boxes_.on_death(serial);
      case Watched::kRunner:
        return boxes_.on_runner(serial);
    }
  }

  void from_user() {
    if (!socket_) return;
    Message message;
    if (receive_message(socket_.get(), message) != 1) return user_gone();
    Unpacker in(message.bytes);
    const MessageKind kind = in.kind();
    boxes_.handle(kind, in, message.fds);
  }

  void user_gone() {
    socket_.reset();
    outbox_.clear();
    boxes_.end_all();
    for (auto& newborn : nursery_.take_all()) boxes_.bury(std::move(newborn));
    nursery_.end_zygotes();
    groups_.remove_spares();
  }

  // Answers wait here while the user's socket is full; descriptors are kept open for them.
  struct Waiting {
    std::string bytes;
    std::vector<Fd> fds;
  };

  void send(const std::string& bytes, const std::vector<int>& fds) {
    if (!socket_) return;
    if (outbox_.empty() && send_message(socket_.get(), bytes, fds)) return;
    Waiting waiting{.bytes = bytes, .fds = {}};
    for (const int fd : fds) waiting.fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    outbox_.push_back(std::move(waiting));
  }

  void flush() {
    while (!outbox_.empty()) {
      std::vector<int> fds;
      for (const auto& fd : outbox_.front().fds) fds.push_back(fd.get());
      if (!send_message(socket_.get(), outbox_.front().bytes, fds)) return;
      outbox_.pop_front();
    }
  }

  void watch(int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }

  Fd socket_, epoll_, lock_;
  Groups groups_;
  TemplateRoots roots_;
  Nursery nursery_;
  Boxes boxes_;
  std::deque<Waiting> outbox_;  // at most a few messages per command and sandbox
  bool idle_work_ = true;
};

}  // namespace

int serve(int socket) {
  ::close_range(static_cast<unsigned>(socket) + 1, ~0u, 0);  // whatever our starter had open
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  // What a terminal or a service manager sends to a whole group is for the user, whose end is ours. Blocked,
  // not ignored: the children set a mask of their own, and an ignored signal would stay ignored in what they
  // run.
  sigset_t blocked;
  ::sigemptyset(&blocked);
  for (const int number : {SIGINT, SIGHUP, SIGTERM, SIGQUIT}) ::sigaddset(&blocked, number);
  ::sigprocmask(SIG_SETMASK, &blocked, nullptr);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  return Server(socket).run();
}

}  // namespace capstan::sandbox
