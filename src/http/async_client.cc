// How: a call takes a kept connection of HTTP/1.1, or a stream of a shared one of HTTP/2, or opens one. Names are looked up
// on a thread of their own, since the system's resolver blocks.
#include "http/async_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>

#include "http/async_state.h"
#include "http/http1_link.h"
#include "http/http2_link.h"

namespace capstan::http {
namespace {

constexpr std::size_t kReadBytes = 64u << 10;

bool look_up(const std::string& host, int port, bool numeric, Peer& peer) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return false;
  std::memcpy(&peer.address, found->ai_addr, found->ai_addrlen);
  peer.address_bytes = found->ai_addrlen;
  ::freeaddrinfo(found);
  return true;
}

std::string head_of(const Peer& peer, const Request& request, std::size_t body_bytes) {
  std::string out = request.method;
  out.append(" ").append(request.target).append(" HTTP/1.1\r\n");
  if (request.headers.find("host") == nullptr) out.append("host: ").append(peer.authority).append("\r\n");
  for (const auto& [name, value] : request.headers.all()) out.append(name).append(": ").append(value).append("\r\n");
  if (body_bytes > 0 || request.method == "POST" || request.method == "PUT")
    out.append("content-length: ").append(std::to_string(body_bytes)).append("\r\n");
  return out += "\r\n";
}

}  // namespace

int begin_connect(const Peer& peer, std::string& why) {
  const int fd = ::socket(peer.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return why = std::strerror(errno), -1;
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&peer.address), peer.address_bytes);
  if (result == 0 || errno == EINPROGRESS) return fd;
  why = std::strerror(errno);
  ::close(fd);
  return -1;
}

int connect_error(int fd) {
  int error = 0;
  socklen_t bytes = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
  return error;
}

Call::Call(AsyncClient::State& state, std::string_view b, const CallOptions& options, CallSink& sink)
    : body(b), state_(state), options_(options), sink_(sink), timer_(state.loop, [this] { timed_out(); }) {}

Call::~Call() {
  *alive_ = false;
  leave();
}

// Gives its connection up.
void Call::leave() {
  if (link_) {
    link_->release();
    state_.bury(std::move(link_));
  }
  if (const auto link = std::exchange(shared_link_, nullptr)) link->release(stream_);
}

void Call::pause() {
  paused_ = true;
  if (link_) link_->pause(true);
  if (shared_link_) shared_link_->pause(stream_, true);
  timer_.disarm();
}

void Call::resume() {
  paused_ = false;
  if (link_) link_->pause(false);
  if (shared_link_) shared_link_->pause(stream_, false);
  touch();
}

void Call::end(Result<void> result) {
  shared_link_.reset();
  timer_.disarm();
  *alive_ = false;
  sink_.on_end(std::move(result));
}

void Call::timed_out() {
  const Error error{Code::kTimeout,
                    connected_ ? fmt::format("{} was silent for {} ms", peer_->authority, options_.silence_timeout_ms)
                               : fmt::format("no connection to {} within {} ms", peer_->authority,
                                             options_.connect_timeout_ms),
                    {}};
  leave();
  *alive_ = false;
  sink_.on_end(std::unexpected(error));
}

std::unique_ptr<Http1Link> Call::take_link() { return std::move(link_); }

void Call::start(PeerPtr peer, const Request& request) {
  peer_ = std::move(peer);
  head_request_ = request.method == "HEAD";
  multiplexes_ = options_.http2 && !peer_->url.tls;
  if (multiplexes_) {
    request_ = {.method = request.method, .target = request.target, .headers = request.headers};
    return multiplex();
  }
  head_bytes_ = head_of(*peer_, request, body.size());
  link_ = state_.take(*peer_);
  if (!link_) return connect();
  connected_ = true;
  touch();
  link_->begin(*this);
}

void Call::retry(Error why) {
  shared_link_.reset();
  if (retries_left_-- == 0) return end(std::unexpected(std::move(why)));
  multiplexes_ ? multiplex() : connect();
}

void Call::connect() {
  connected_ = false;
  touch();
  if (peer_->address_bytes == 0) return look_up_and_connect();
  std::string why;
  const auto open = [&](auto& link) {
    if (!link.open(why))
      later_end({Code::kUnavailable, fmt::format("cannot connect to {}: {}", peer_->authority, why), {}});
    return why.empty();
  };
  if (!multiplexes_) {
    link_ = std::make_unique<Http1Link>(state_, peer_);
    if (open(*link_)) link_->begin(*this);
    return;
  }
  const auto link = std::make_shared<Http2Link>(state_, peer_);
  if (!open(*link)) return;
  state_.add_multiplexed(link);
  multiplex();
}

void Call::multiplex() {
  shared_link_ = state_.take_multiplexed(*peer_);
  if (!shared_link_) return connect();
  connected_ = shared_link_->connected();
  touch();
  stream_ = shared_link_->begin(*this);
}

void Call::later_end(Error error) {
  state_.loop.post([this, alive = alive_, error = std::move(error)] {
    if (*alive) end(std::unexpected(error));
  });
}

// Rare, since addresses are kept with the peer.
void Call::look_up_and_connect() {
  if (!state_.resolver) state_.resolver.emplace(1);
  boost::asio::post(*state_.resolver, [this, alive = alive_, peer = peer_, &loop = state_.loop] {
    auto found = std::make_shared<Peer>(*peer);
    const bool known = look_up(peer->url.host, peer->url.port, false, *found);
    loop.post([this, alive, found, known] {
      if (!*alive) return;
      if (!known)
        return end(fail(Code::kUnavailable, "cannot find host {}", found->url.host));
      for (auto& [url, kept] : state_.peers) {
        if (kept == peer_) kept = found;
      }
      peer_ = found;
      connect();
    });
  });
}

AsyncClient::State::State(EventLoop& l) : loop(l), scratch(kReadBytes), sweeper(l, [this] { sweep(); }) {}
AsyncClient::State::~State() = default;

Result<PeerPtr> AsyncClient::State::find_peer(const std::string& url) {
  if (const auto found = peers.find(url); found != peers.end()) return found->second;
  auto peer = std::make_shared<Peer>();
  CAPSTAN_TRY(peer->url, parse_url(url));
  peer->authority = fmt::format("{}:{}", peer->url.host, peer->url.port);
  look_up(peer->url.host == "localhost" ? "127.0.0.1" : peer->url.host, peer->url.port, true, *peer);
  if (peers.size() > 4 * kKeptMax) std::erase_if(peers, [](const auto& entry) { return entry.second.use_count() == 1; });
  peers.emplace(url, peer);
  return PeerPtr(std::move(peer));
}

std::unique_ptr<Http1Link> AsyncClient::State::take(const Peer& peer) {
  const auto found = kept.find(&peer);
  if (found == kept.end()) return nullptr;
  auto link = std::move(found->second.back());  // the one used last is the likeliest to be alive
  found->second.pop_back();
  if (found->second.empty()) kept.erase(found);
  --kept_count;
  return link;
}

void AsyncClient::State::keep(std::unique_ptr<Http1Link> link) {
  if (closed || kept_count >= kKeptMax) return bury(std::move(link));
  link->kept_since_ms = loop.now_ms();
  auto& list = kept[&link->peer()];
  list.push_back(std::move(link));
  if (kept_count++ == 0) sweeper.arm(kKeptMs);
}

void AsyncClient::State::drop_kept(Http1Link& link) {
  const auto found = kept.find(&link.peer());
  if (found == kept.end()) return;
  for (auto it = found->second.begin(); it != found->second.end(); ++it) {
    if (it->get() != &link) continue;
    bury(std::move(*it));
    found->second.erase(it);
    --kept_count;
    break;
  }
  if (found->second.empty()) kept.erase(found);
}

// A link's own function may still be running.
void AsyncClient::State::bury(std::unique_ptr<Http1Link> link) {
  if (!link) return;
  link->close();
  if (dead.empty() && !closed) {
    loop.post([state = shared_from_this()] { state->dead.clear(); });
  }
  dead.push_back(std::move(link));
}

std::shared_ptr<Http2Link> AsyncClient::State::take_multiplexed(const Peer& peer) const {
  const auto found = multiplexed.find(&peer);
  if (found == multiplexed.end()) return nullptr;
  const auto link = std::ranges::find_if(found->second, [](const auto& one) { return one->has_room(); });
  return link == found->second.end() ? nullptr : *link;
}

void AsyncClient::State::add_multiplexed(std::shared_ptr<Http2Link> link) {
  multiplexed[&link->peer()].push_back(std::move(link));
  sweeper.arm(kKeptMs / 2);
}

void AsyncClient::State::drop_multiplexed(const Http2Link& link) {
  const auto found = multiplexed.find(&link.peer());
  if (found == multiplexed.end()) return;
  std::erase_if(found->second, [&](const auto& one) { return one.get() == &link; });
  if (found->second.empty()) multiplexed.erase(found);
}

void AsyncClient::State::sweep() {
  for (auto it = kept.begin(); it != kept.end();) {
    auto& list = it->second;
    while (!list.empty() && loop.now_ms() - list.front()->kept_since_ms >= kKeptMs) {
      bury(std::move(list.front()));
      list.pop_front();
      --kept_count;
    }
    it = list.empty() ? kept.erase(it) : std::next(it);
  }
  std::vector<std::shared_ptr<Http2Link>> idle;
  for (const auto& [peer, links] : multiplexed) {
    for (const auto& link : links) {
      if (link->idle_for_ms() >= kKeptMs) idle.push_back(link);
    }
  }
  for (const auto& link : idle) link->close();
  if (kept_count > 0 || !multiplexed.empty()) sweeper.arm(kKeptMs / 2);
}

AsyncClient::AsyncClient(EventLoop& loop) : state_(std::make_shared<State>(loop)) {}

AsyncClient::~AsyncClient() {
  if (state_->resolver) state_->resolver->join();
  state_->closed = true;
  state_->kept.clear();
  state_->dead.clear();
  while (!state_->multiplexed.empty()) {
    const auto link = state_->multiplexed.begin()->second.front();
    link->close();
  }
}

std::unique_ptr<AsyncCall> AsyncClient::start(const std::string& url, const Request& head, std::string_view body,
                                              const CallOptions& options, CallSink& sink) {
  auto call = std::make_unique<Call>(*state_, body, options, sink);
  auto peer = state_->find_peer(url);
  peer ? call->start(*std::move(peer), head) : call->later_end(peer.error());
  return call;
}

}  // namespace capstan::http
