// How it works: head, lookup, connection, then bytes both ways with a bounded buffer for each; a side is read only while the
// other's buffer has room, and a side of which nothing is wanted is not watched (it would report its end for ever). The end of
// one direction is passed on when its buffer is empty.
#include "agents/egress/proxy_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "http/message.h"

namespace capstan::agents {
namespace {

constexpr std::string_view kHeadEnd = "\r\n\r\n", kTunnelOpen = "HTTP/1.1 200 Connection established\r\n\r\n";
constexpr std::int64_t kRefusalMs = 5'000;  // for the client to read it
constexpr std::size_t kAddressesMax = 8;

}  // namespace

void ProxyConnection::Side::on_ready(std::uint32_t events) {
  const auto keep = connection.shared_from_this();
  connection.on_side(*this, events);
}

ProxyConnection::ProxyConnection(Egress& egress, sandbox::Fd client)
    : egress_(egress), timer_(egress.loop_, [this] {
        const auto keep = shared_from_this();
        if (state_ == State::kHead) return refuse(408, "the request did not come whole in time");
        if (state_ == State::kAsking) return refuse(504, fmt::format("the resolver does not answer for {}", request_.host));
        if (state_ == State::kConnecting) return connect_next();
        close();
      }) {
  inner_.fd = std::move(client);
}

void ProxyConnection::begin() {
  touch(egress_.limits_.head_ms_max);
  watch(inner_, EPOLLIN);
}

void ProxyConnection::watch(Side& side, std::uint32_t events) {
  if (events == side.watched || !side.fd) return;
  if (side.watched == 0)
    egress_.loop_.watch(side.fd.get(), events, side);
  else if (events == 0)
    egress_.loop_.unwatch(side.fd.get(), side);
  else
    egress_.loop_.rewatch(side.fd.get(), events, side);
  side.watched = events;
}

void ProxyConnection::close() {
  timer_.disarm();
  for (Side* side : {&inner_, &outer_}) {
    watch(*side, 0);
    side->fd.reset();
  }
  egress_.forget(shared_from_this());
}

void ProxyConnection::refuse(int status, std::string_view text) {
  watch(outer_, 0);
  outer_.fd.reset();
  inner_.waiting = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\ncapstan: {}\n",
      status, http::reason_phrase(status), text.size() + 10, text);
  state_ = State::kRefused;
  touch(kRefusalMs);
  write_refusal();
}

void ProxyConnection::write_refusal() {
  if (!write(inner_)) return close();
  if (inner_.waiting.empty()) ::shutdown(inner_.fd.get(), SHUT_WR);
  watch(inner_, inner_.waiting.empty() ? EPOLLIN : EPOLLOUT);
}

void ProxyConnection::on_side(Side& side, std::uint32_t events) {
  switch (state_) {
    case State::kHead:
      return take_head();
    case State::kAsking:
      return;
    case State::kConnecting:
      if (&side == &outer_) on_connected();
      return;
    case State::kRefused: {
      // What still comes is read and dropped, so that the answer is not lost to a reset.
      char dropped[4096];
      const bool readable = (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0;
      if (readable && ::read(side.fd.get(), dropped, sizeof dropped) <= 0) return close();
      return write_refusal();
    }
    case State::kThrough:
      touch(egress_.limits_.idle_ms_max);
      if ((events & EPOLLERR) != 0 || !move(inner_, outer_) || !move(outer_, inner_)) return close();
      return watch_both();
  }
}

void ProxyConnection::take_head() {
  char buffer[4096];
  const ssize_t count = ::read(inner_.fd.get(), buffer, sizeof buffer);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return close();
  head_.append(buffer, static_cast<std::size_t>(count));
  const std::size_t end = head_.find(kHeadEnd);
  if (std::min(end, head_.size()) > kProxyHeadBytesMax)
    return refuse(431, fmt::format("the head of a request may have {} bytes", kProxyHeadBytesMax));
  if (end == head_.npos) return;
  auto request = parse_proxy_request(std::string_view(head_).substr(0, end + kHeadEnd.size()));
  if (!request) return refuse(400, request.error().message);
  request_ = std::move(*request);
  head_.erase(0, end + kHeadEnd.size());
  ask();
}

// Is it on the list? Then where is it?
void ProxyConnection::ask() {
  const HostRules rules = egress_.rules();
  const auto literal = Address::parse(request_.host);
  const bool listed = literal ? rules.allows_address(*literal, request_.port) : rules.allows_name(request_.host, request_.port);
  if (!listed) {
    return refuse(403, fmt::format("{}:{} is not among the hosts that this sandbox may reach: {}",
                                   is_host_name(request_.host) || literal ? request_.host : "that", request_.port, rules.text()));
  }
  state_ = State::kAsking;
  watch(inner_, 0);
  touch(egress_.limits_.connect_ms_max);
  if (literal) return choose({*literal});
  if (!is_host_name(request_.host)) return refuse(400, "that is no host name");
  const bool asked = egress_.lookups_->ask(
      request_.host, [weak = weak_from_this(), &loop = egress_.loop_](std::vector<Address> found) {
        loop.post([weak, found = std::move(found)] {
          const auto self = weak.lock();
          if (self && self->state_ == State::kAsking && self->inner_.fd) self->choose(found);
        });
      });
  if (!asked) refuse(503, "too many names are being looked up; try again");
}

void ProxyConnection::choose(const std::vector<Address>& found) {
  if (found.empty()) return refuse(502, fmt::format("{} is not known to the resolver", request_.host));
  const HostRules rules = egress_.rules();
  for (const Address& address : found) {
    if (addresses_.size() < kAddressesMax && rules.permits(address, request_.port)) addresses_.push_back(address);
  }
  if (addresses_.empty()) {
    return refuse(403, fmt::format("{} leads to {}, which is not a public address and is not listed as such", request_.host,
                                   found[0].text()));
  }
  std::ranges::reverse(addresses_);
  connect_next();
}

void ProxyConnection::connect_next() {
  state_ = State::kConnecting;
  while (!addresses_.empty()) {
    watch(outer_, 0);
    sockaddr_storage address;
    const socklen_t size = addresses_.back().fill(request_.port, address);
    addresses_.pop_back();
    outer_.fd.reset(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!outer_.fd) continue;
    if (::connect(outer_.fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS) continue;
    touch(egress_.limits_.connect_ms_max);
    return watch(outer_, EPOLLOUT);
  }
  refuse(504, fmt::format("{}:{} cannot be reached", request_.host, request_.port));
}

void ProxyConnection::on_connected() {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(outer_.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return connect_next();
  state_ = State::kThrough;
  touch(egress_.limits_.idle_ms_max);
  if (request_.tunnel) inner_.waiting = kTunnelOpen;
  outer_.waiting = request_.head + head_;
  egress_.bytes_out_ += static_cast<std::int64_t>(outer_.waiting.size());
  head_.clear();
  if (!move(inner_, outer_) || !move(outer_, inner_)) return close();
  watch_both();
}

bool ProxyConnection::move(Side& from, Side& to) {
  if (!from.read_over && to.wants_more()) {
    char buffer[kBufferBytes];
    const ssize_t count = ::read(from.fd.get(), buffer, sizeof buffer);
    if (count > 0) {
      to.waiting.append(buffer, static_cast<std::size_t>(count));
      (&to == &inner_ ? egress_.bytes_in_ : egress_.bytes_out_) += count;
    } else if (count == 0) {
      from.read_over = true;
    } else if (errno != EAGAIN && errno != EINTR) {
      return false;
    }
  }
  if (!write(to)) return false;
  if (from.read_over && to.waiting.empty() && !to.write_over) {
    to.write_over = true;
    if (::shutdown(to.fd.get(), SHUT_WR) != 0) return false;
  }
  return !(inner_.write_over && outer_.write_over);
}

bool ProxyConnection::write(Side& side) {
  while (!side.waiting.empty()) {
    const ssize_t count = ::send(side.fd.get(), side.waiting.data(), side.waiting.size(), MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    side.waiting.erase(0, static_cast<std::size_t>(count));
  }
  return true;
}

void ProxyConnection::watch_both() {
  for (Side* side : {&inner_, &outer_}) {
    const Side& other = side == &inner_ ? outer_ : inner_;
    std::uint32_t events = side->waiting.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT);
    if (!side->read_over && other.wants_more()) events |= EPOLLIN;
    watch(*side, events);
  }
}

}  // namespace capstan::agents
