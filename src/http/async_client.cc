// How: a Link is one connection, in turn connecting, shaking hands, busy with one call, kept. Kept links are watched, so
// that one whose server leaves is gone before it is used. Names are looked up on a thread of their own, since the
// system's resolver blocks.
#include "http/async_client.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <optional>

#include "http/http1_reader.h"
#include "http/tls.h"

namespace capstan::http {
namespace {

constexpr std::size_t kReadBytes = 64u << 10;

struct Peer {
  Url url;
  std::string authority;  // for Host
  sockaddr_storage address{};
  socklen_t address_bytes = 0;  // 0: must be looked up
};

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

class Call;

class Link final : public EventLoop::Watcher {
 public:
  Link(AsyncClient::State& state, std::shared_ptr<const Peer> peer);
  ~Link() { close(); }
  bool open(std::string& why);
  void begin(Call& call);
  void release() { call_ = nullptr; }  // the call is given up
  void on_ready(std::uint32_t events) override;
  void pause(bool paused);
  void close();
  const Peer& peer() const { return *peer_; }
  bool kept_before() const { return used_; }
  std::int64_t kept_since_ms = 0;

 private:
  void set_interest(std::uint32_t wanted);
  void connected();
  void shake_hands();
  void send();
  void receive();
  void hand_out(std::string_view bytes);
  void done(bool reusable);
  void fail_call(Error error);
  Error broken(std::string_view what) const;

  AsyncClient::State& state_;
  std::shared_ptr<const Peer> peer_;
  std::unique_ptr<Transport> transport_;
  ResponseReader reader_;
  std::string pending_;  // an incomplete header
  Call* call_ = nullptr;
  std::string head_;  // of the request
  std::size_t sent_ = 0;
  std::uint32_t interest_ = 0;
  enum class Step { kConnecting, kHandshake, kSending, kReceiving, kKept } step_ = Step::kConnecting;
  bool used_ = false, paused_ = false;
  bool streams_ = false;  // the answer under way comes in pieces
};

}  // namespace

struct AsyncClient::State : std::enable_shared_from_this<AsyncClient::State> {
  explicit State(EventLoop& l) : loop(l), sweeper(l, [this] { sweep(); }) {}

  EventLoop& loop;
  std::map<std::string, std::shared_ptr<const Peer>, std::less<>> peers;  // by URL; shared with links
  std::map<const Peer*, std::list<std::unique_ptr<Link>>> kept;
  std::size_t kept_count = 0;
  std::vector<std::unique_ptr<Link>> dead;  // destroyed at the end of the event
  SslContextPtr tls;
  std::optional<boost::asio::thread_pool> resolver;
  std::vector<char> scratch = std::vector<char>(kReadBytes);
  EventLoop::Timer sweeper;
  bool closed = false;

  Result<std::shared_ptr<const Peer>> find_peer(const std::string& url);
  std::unique_ptr<Link> take(const Peer& peer);
  void keep(std::unique_ptr<Link> link);
  void drop_kept(Link& link);
  void bury(std::unique_ptr<Link> link);
  void sweep();
};

namespace {

class Call final : public AsyncCall {
 public:
  Call(AsyncClient::State& state, std::string_view body, const CallOptions& options, CallSink& sink)
      : state_(state), body(body), options(options), sink_(sink), timer_(state.loop, [this] { timed_out(); }) {}
  ~Call() override {
    *alive_ = false;
    if (link_) {
      link_->release();
      state_.bury(std::move(link_));
    }
  }
  void pause() override {
    paused_ = true;
    if (link_) link_->pause(true);
    timer_.disarm();
  }
  void resume() override {
    paused_ = false;
    if (link_) link_->pause(false);
    touch();
  }

  void start(std::shared_ptr<const Peer> peer, const Request& head);
  void connect();
  void look_up_and_connect();
  void later_end(Error error);
  void touch() { timer_.arm(connected ? options.silence_timeout_ms : options.connect_timeout_ms); }
  std::unique_ptr<Link> take_link() { return std::move(link_); }
  bool paused() const { return paused_; }
  const std::shared_ptr<bool>& alive() const { return alive_; }

  // Of the link:
  void head(Response& response) {
    head_seen_ = true;
    sink_.on_head(response);
  }
  void piece(std::string_view bytes) { sink_.on_piece(bytes); }
  void end(Result<void> result) {
    timer_.disarm();
    *alive_ = false;
    sink_.on_end(std::move(result));
  }
  bool may_retry(const Link& link, bool any_bytes) const { return link.kept_before() && !any_bytes && !head_seen_; }

  AsyncClient::State& state_;
  std::string_view body;
  std::string head_bytes;
  bool head_request = false;
  bool connected = false;
  CallOptions options;

 private:
  void timed_out() {
    const Error error{Code::kTimeout,
                      connected ? fmt::format("{} was silent for {} ms", peer_->authority, options.silence_timeout_ms)
                                : fmt::format("no connection to {} within {} ms", peer_->authority,
                                              options.connect_timeout_ms),
                      {}};
    if (link_) {
      link_->release();
      state_.bury(std::move(link_));
    }
    *alive_ = false;
    sink_.on_end(std::unexpected(error));
  }

  CallSink& sink_;
  std::shared_ptr<const Peer> peer_;
  std::unique_ptr<Link> link_;
  EventLoop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // shared with callbacks on their way
  bool head_seen_ = false;
  bool paused_ = false;
};

std::string head_of(const Peer& peer, const Request& request, std::size_t body_bytes) {
  std::string out = request.method;
  out.append(" ").append(request.target).append(" HTTP/1.1\r\n");
  if (request.headers.find("host") == nullptr) out.append("host: ").append(peer.authority).append("\r\n");
  for (const auto& [name, value] : request.headers.all()) out.append(name).append(": ").append(value).append("\r\n");
  if (body_bytes > 0 || request.method == "POST" || request.method == "PUT")
    out.append("content-length: ").append(std::to_string(body_bytes)).append("\r\n");
  return out += "\r\n";
}

void Call::start(std::shared_ptr<const Peer> peer, const Request& request) {
  peer_ = std::move(peer);
  head_bytes = head_of(*peer_, request, body.size());
  head_request = request.method == "HEAD";
  link_ = state_.take(*peer_);
  connected = link_ != nullptr;
  touch();
  if (link_) return link_->begin(*this);
  connect();
}

void Call::connect() {
  if (peer_->address_bytes == 0) return look_up_and_connect();
  link_ = std::make_unique<Link>(state_, peer_);
  connected = false;
  std::string why;
  if (!link_->open(why))
    return later_end({Code::kUnavailable, fmt::format("cannot connect to {}: {}", peer_->authority, why), {}});
  link_->begin(*this);
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

Link::Link(AsyncClient::State& state, std::shared_ptr<const Peer> peer) : state_(state), peer_(std::move(peer)) {}

bool Link::open(std::string& why) {
  const int fd = ::socket(peer_->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return why = std::strerror(errno), false;
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&peer_->address), peer_->address_bytes);
  if (result != 0 && errno != EINPROGRESS) {
    why = std::strerror(errno);
    ::close(fd);
    return false;
  }
  if (peer_->url.tls) {
    if (!state_.tls) state_.tls = client_tls();
    transport_ = std::make_unique<Transport>(fd, connect_tls(*state_.tls, peer_->url.host));
  } else {
    transport_ = std::make_unique<Transport>(fd);
  }
  interest_ = EPOLLOUT;
  state_.loop.watch(fd, interest_, *this);
  return true;
}

void Link::close() {
  if (!transport_ || !transport_->is_open()) return;
  state_.loop.unwatch(transport_->fd(), *this);
  transport_->close();
}

void Link::begin(Call& call) {
  call_ = &call;
  head_ = call.head_bytes;
  sent_ = 0;
  paused_ = false;
  streams_ = false;
  pending_.clear();
  reader_.start(call.head_request);
  if (step_ != Step::kKept) return;
  used_ = true;
  step_ = Step::kSending;
  send();
}

void Link::set_interest(std::uint32_t wanted) {
  if (wanted == interest_) return;
  interest_ = wanted;
  state_.loop.rewatch(transport_->fd(), wanted, *this);
}

void Link::pause(bool paused) {
  paused_ = paused;
  if (step_ == Step::kReceiving) set_interest(paused ? 0u : EPOLLIN);
}

Error Link::broken(std::string_view what) const {
  return {Code::kUnavailable, fmt::format("{} {}: {}", what, peer_->authority, transport_->failure()), {}};
}

void Link::on_ready(std::uint32_t events) {
  if (step_ == Step::kConnecting) return connected();
  if (step_ == Step::kHandshake) return shake_hands();
  if (step_ == Step::kKept) return state_.drop_kept(*this);  // its server left, or says what nobody asked for
  if (step_ == Step::kSending && (events & EPOLLOUT) != 0) send();
  if (call_ != nullptr && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive();
}

void Link::connected() {
  int error = 0;
  socklen_t bytes = sizeof error;
  ::getsockopt(transport_->fd(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (error != 0)
    return fail_call({Code::kUnavailable, fmt::format("cannot connect to {}: {}", peer_->authority, std::strerror(error)), {}});
  step_ = Step::kHandshake;
  shake_hands();
}

void Link::shake_hands() {
  const auto status = transport_->handshake();
  if (status == Transport::Status::kBlocked) return set_interest(transport_->wants_write() ? EPOLLOUT : EPOLLIN);
  if (status != Transport::Status::kOk) return fail_call(broken("TLS handshake failed with"));
  step_ = Step::kSending;
  call_->connected = true;
  call_->touch();
  send();
}

void Link::send() {
  const std::size_t all = head_.size() + call_->body.size();
  while (sent_ < all) {
    std::array<iovec, 2> pieces;
    std::size_t count = 0;
    if (sent_ < head_.size()) pieces[count++] = {head_.data() + sent_, head_.size() - sent_};
    const std::size_t body_sent = sent_ > head_.size() ? sent_ - head_.size() : 0;
    if (body_sent < call_->body.size())
      pieces[count++] = {const_cast<char*>(call_->body.data()) + body_sent, call_->body.size() - body_sent};
    const auto written = transport_->write(std::span(pieces.data(), count));
    // A server may answer, and close, before it has read everything.
    if (written.status == Transport::Status::kBlocked) return set_interest(EPOLLOUT | EPOLLIN);
    if (written.status != Transport::Status::kOk) {
      step_ = Step::kReceiving;
      return set_interest(EPOLLIN);
    }
    sent_ += written.bytes;
    call_->touch();
  }
  step_ = Step::kReceiving;
  set_interest(paused_ ? 0u : EPOLLIN);
}

void Link::receive() {
  const auto alive = call_->alive();
  do {
    const auto read = transport_->read(state_.scratch.data(), state_.scratch.size());
    if (read.status == Transport::Status::kBlocked) return;
    if (read.status != Transport::Status::kOk) {
      const bool any = reader_.any_bytes();
      if (read.status == Transport::Status::kEnd && any) {
        if (auto end = reader_.feed_end(); end) return done(false);
      }
      return fail_call(read.status == Transport::Status::kEnd
                           ? Error{Code::kUnavailable,
                                   fmt::format("{} closed the connection before the answer's end", peer_->authority),
                                   {}}
                           : broken("the answer broke off from"));
    }
    call_->touch();
    hand_out({state_.scratch.data(), read.bytes});
  } while (*alive && call_ != nullptr && transport_->is_tls() && !paused_);
}

void Link::hand_out(std::string_view bytes) {
  if (!pending_.empty()) {
    pending_.append(bytes);
    bytes = pending_;
  }
  const auto alive = call_->alive();
  Call* const call = call_;
  const ResponseReader::Callbacks callbacks{[call](Response& head) { call->head(head); },
                                            [call](std::string_view piece) { call->piece(piece); },
                                            [&alive] { return *alive; }};
  const auto used = reader_.feed(bytes, callbacks);
  if (!*alive) return;  // the call is given up, and this link is buried
  if (!used) return fail_call(Error(used.error()));
  if (reader_.done()) return done(*used == bytes.size());
  pending_ = std::string(bytes.substr(*used));
  if (!std::exchange(streams_, true)) transport_->delay_acknowledgements();
}

void Link::done(bool reusable) {
  Call& call = *std::exchange(call_, nullptr);
  auto self = call.take_link();
  if (reusable && reader_.keep_alive() && sent_ == head_.size() + call.body.size()) {
    step_ = Step::kKept;
    set_interest(EPOLLIN);
    state_.keep(std::move(self));
  } else {
    state_.bury(std::move(self));
  }
  call.end({});
}

void Link::fail_call(Error error) {
  Call& call = *std::exchange(call_, nullptr);
  const bool retry = call.may_retry(*this, reader_.any_bytes());
  state_.bury(call.take_link());
  if (retry) return call.connect();
  call.end(std::unexpected(std::move(error)));
}

}  // namespace

Result<std::shared_ptr<const Peer>> AsyncClient::State::find_peer(const std::string& url) {
  if (const auto found = peers.find(url); found != peers.end()) return found->second;
  auto peer = std::make_shared<Peer>();
  CAPSTAN_TRY(peer->url, parse_url(url));
  peer->authority = fmt::format("{}:{}", peer->url.host, peer->url.port);
  look_up(peer->url.host == "localhost" ? "127.0.0.1" : peer->url.host, peer->url.port, true, *peer);
  if (peers.size() > 4 * kKeptMax) std::erase_if(peers, [](const auto& entry) { return entry.second.use_count() == 1; });
  peers.emplace(url, peer);
  return std::shared_ptr<const Peer>(std::move(peer));
}

std::unique_ptr<Link> AsyncClient::State::take(const Peer& peer) {
  const auto found = kept.find(&peer);
  if (found == kept.end()) return nullptr;
  auto link = std::move(found->second.back());  // the one used last is the likeliest to be alive
  found->second.pop_back();
  if (found->second.empty()) kept.erase(found);
  --kept_count;
  return link;
}

void AsyncClient::State::keep(std::unique_ptr<Link> link) {
  if (closed || kept_count >= kKeptMax) return bury(std::move(link));
  link->kept_since_ms = loop.now_ms();
  auto& list = kept[&link->peer()];
  list.push_back(std::move(link));
  if (kept_count++ == 0) sweeper.arm(kKeptMs);
}

void AsyncClient::State::drop_kept(Link& link) {
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
void AsyncClient::State::bury(std::unique_ptr<Link> link) {
  if (!link) return;
  link->close();
  if (dead.empty() && !closed) {
    loop.post([state = shared_from_this()] { state->dead.clear(); });
  }
  dead.push_back(std::move(link));
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
  if (kept_count > 0) sweeper.arm(kKeptMs / 2);
}

AsyncClient::AsyncClient(EventLoop& loop) : state_(std::make_shared<State>(loop)) {}

AsyncClient::~AsyncClient() {
  if (state_->resolver) state_->resolver->join();
  state_->closed = true;
  state_->kept.clear();
  state_->dead.clear();
}

std::unique_ptr<AsyncCall> AsyncClient::start(const std::string& url, const Request& head, std::string_view body,
                                              const CallOptions& options, CallSink& sink) {
  auto call = std::make_unique<Call>(*state_, body, options, sink);
  auto peer = state_->find_peer(url);
  peer ? call->start(*std::move(peer), head) : call->later_end(peer.error());
  return call;
}

}  // namespace capstan::http
