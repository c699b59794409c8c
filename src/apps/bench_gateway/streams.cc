// How: all sockets in one epoll set that is looked at every kLookMs; what is ready is read once each.
#include "apps/bench_gateway/streams.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>

namespace capstan::bench_gateway {
namespace {

constexpr int kLookMs = 2;
constexpr int kStartedPerLook = 6;      // 1,000 streams begin within a third of a second
constexpr int kSilenceLooksMax = 5'000;  // ten seconds without anything: what is missing does not come
constexpr std::string_view kMark = "\"us=";

struct Stream {
  int fd = -1;
  int tokens = 0;
  bool done = false;
  std::string rest;  // of what came last, where a mark may have been cut
};

class Listener {
 public:
  Listener(int port, const std::string& key, const StreamLoad& load)
      : port_(port), load_(load), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    const std::string body = fmt::format(
        R"({{"model":"bench","stream":true,"max_tokens":{},"messages":[{{"role":"user","content":"Tell me a story."}}]}})",
        load.tokens);
    request_ = fmt::format(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n"
        "authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{}",
        port, key, body.size(), body);
    streams_.reserve(static_cast<std::size_t>(load.streams));
  }
  ~Listener() {
    for (const Stream& stream : streams_) ::close(stream.fd);
    ::close(epoll_);
  }

  Result<StreamResult> run() {
    timespec next{};
    ::clock_gettime(CLOCK_MONOTONIC, &next);
    for (int silent = 0; open_ > 0 || std::cmp_less(streams_.size(), load_.streams); ++silent) {
      if (silent > kSilenceLooksMax) break;
      for (int i = 0; i < kStartedPerLook && std::cmp_less(streams_.size(), load_.streams); ++i) {
        CAPSTAN_CHECK(start());
        silent = 0;
      }
      if (look()) silent = 0;
      next.tv_nsec += kLookMs * 1'000'000;
      if (next.tv_nsec >= 1'000'000'000) next.tv_nsec -= 1'000'000'000, ++next.tv_sec;
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
    }
    std::ranges::sort(result_.delays_us);
    return std::move(result_);
  }

 private:
  Result<void> start() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      return fail_errno("a stream cannot connect", errno);
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (::send(fd, request_.data(), request_.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request_.size()))
      return fail_errno("a stream's request cannot be sent", errno);
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = streams_.size()}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    streams_.push_back({.fd = fd, .rest = {}});
    ++open_;
    return {};
  }

  bool look() {
    const int count = ::epoll_wait(epoll_, ready_.data(), static_cast<int>(ready_.size()), 0);
    for (int i = 0; i < count; ++i) read(streams_[ready_[static_cast<std::size_t>(i)].data.u64]);
    return count > 0;
  }

  void read(Stream& stream) {
    iovec piece{buffer_.data(), buffer_.size()};
    alignas(cmsghdr) std::array<char, 256> control;
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t bytes = ::recvmsg(stream.fd, &message, 0);
    if (bytes < 0 && errno == EAGAIN) return;
    if (bytes <= 0) return end(stream);
    std::int64_t arrived_us = 0;
    for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
      if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_TIMESTAMPNS) continue;
      timespec at{};
      std::memcpy(&at, CMSG_DATA(one), sizeof at);
      arrived_us = std::int64_t{at.tv_sec} * 1'000'000 + at.tv_nsec / 1'000;
    }
    count(stream, {buffer_.data(), static_cast<std::size_t>(bytes)}, arrived_us != 0 ? arrived_us : stamp_us());
    if (stream.done) end(stream);
  }

  void count(Stream& stream, std::string_view piece, std::int64_t arrived_us) {
    if (!stream.rest.empty()) {
      stream.rest.append(piece);
      piece = stream.rest;
    }
    std::size_t read = 0;
    for (std::size_t at = piece.find(kMark); at != std::string_view::npos; at = piece.find(kMark, read)) {
      const auto end = piece.find('"', at + kMark.size());
      if (end == std::string_view::npos) break;
      std::int64_t sent_us = 0;
      std::from_chars(piece.data() + at + kMark.size(), piece.data() + end, sent_us);
      result_.delays_us.push_back(arrived_us - sent_us);
      ++stream.tokens;
      read = end;
    }
    stream.done = piece.find("[DONE]", read) != std::string_view::npos;
    const auto event_end = piece.rfind("\n\n");
    const std::size_t kept = event_end == std::string_view::npos ? 0 : event_end + 2;
    stream.rest = std::string(piece.substr(std::max(read, kept)));
  }

  void end(Stream& stream) {
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, stream.fd, nullptr);
    result_.delivered += stream.tokens;
    result_.complete += stream.done && stream.tokens == load_.tokens;
    --open_;
  }

  const int port_;
  const StreamLoad load_;
  const int epoll_;
  std::string request_;
  std::vector<Stream> streams_;
  int open_ = 0;
  std::array<epoll_event, 1'024> ready_;
  std::vector<char> buffer_ = std::vector<char>(64u << 10);
  StreamResult result_;
};

}  // namespace

std::int64_t stamp_us() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000;
}

Result<StreamResult> run_streams(int port, const std::string& key, const StreamLoad& load) {
  return Listener(port, key, load).run();
}

}  // namespace capstan::bench_gateway
