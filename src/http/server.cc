// How: one thread accepts and runs the event loop. Stopping goes from the outside in: no new connections, a
// wait for the answers under way, all connections closed (which tells their handlers), the handlers' ends
// awaited, then the event loop's.
#include "http/server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "http/connection.h"
#include "http/tls.h"

namespace capstan::http {
namespace {

constexpr int kAcceptsPerTurn = 64;
constexpr int kBacklog = 4096;
constexpr int kRetryMs = 50;

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

Result<Address> numeric_address(const std::string& host, int port) {
  Address address;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<std::uint16_t>(port));
    address.bytes = sizeof v4;
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<std::uint16_t>(port));
    address.bytes = sizeof v6;
  } else {
    return fail(Code::kInvalid, "'{}' is not an address to listen on; write for example 127.0.0.1", host);
  }
  return address;
}

std::string text_of(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = {};
  const void* from = storage.ss_family == AF_INET
                         ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(storage).sin_addr)
                         : &reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
  ::inet_ntop(storage.ss_family, from, text, sizeof text);
  return text;
}

Result<int> listen_on(const ServerOptions& options) {
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  CAPSTAN_TRY(const Address address, numeric_address(host, options.port));
  const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno("cannot open a socket", errno);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) == 0;
  if (bound && ::listen(fd, kBacklog) == 0) return fd;
  const int error = errno;
  ::close(fd);
  if (error == EADDRINUSE)
    return fail(Code::kConflict, "port {} on {} is in use; choose another", options.port, host);
  return fail(Code::kIo, "cannot listen on {}:{}: {}", host, options.port, std::string(::strerror(error)));
}

}  // namespace

struct Server::State final : EventLoop::Watcher {
  std::shared_ptr<Shared> shared;  // shared with the connections; before what lives on its event loop
  SslContextPtr tls;
  int listener = -1;
  EventLoop::Timer retry;
  std::thread thread;
  int port = 0;

  State(const ServerOptions& options, Router router)
      : shared(std::make_shared<Shared>(options, std::move(router))),
        retry(shared->loop, [this] {
          if (listener >= 0) shared->loop.rewatch(listener, EPOLLIN, *this);
        }) {}
  ~State() { close_listener(); }

  void on_ready(std::uint32_t) override {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      sockaddr_storage peer{};
      socklen_t bytes = sizeof peer;
      const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        // Out of descriptors, usually: accept again a little later instead of spinning.
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          shared->loop.rewatch(listener, 0, *this);
          retry.arm(kRetryMs);
        }
        return;
      }
      if (std::cmp_greater_equal(shared->connections.size(), shared->limits.connections_max)) {
        refuse_full(fd);
        continue;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      std::make_shared<Connection>(shared, fd, tls ? accept_tls(*tls) : nullptr, text_of(peer))->start();
    }
  }

  static void refuse_full(int fd) {
    static constexpr std::string_view kFull =
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    [[maybe_unused]] const auto ignored = ::send(fd, kFull.data(), kFull.size(), MSG_NOSIGNAL);
    ::close(fd);
  }

  void close_listener() {
    if (listener < 0) return;
    shared->loop.unwatch(listener, *this);
    ::close(std::exchange(listener, -1));
  }
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Router router) {
  const bool use_tls = !options.tls_certificate.empty() || !options.tls_key.empty();
  if (!is_loopback(options.host) && !use_tls) {
    return fail(Code::kInvalid,
                "listening on {} needs TLS: give a certificate and a key, or listen on 127.0.0.1",
                options.host);
  }
  auto state = std::make_unique<State>(options, std::move(router));
  if (use_tls) {
    CAPSTAN_TRY(state->tls, server_tls(options.tls_certificate, options.tls_key));
  }
  CAPSTAN_TRY(state->listener, listen_on(options));
  sockaddr_storage bound{};
  socklen_t bytes = sizeof bound;
  ::getsockname(state->listener, reinterpret_cast<sockaddr*>(&bound), &bytes);
  state->port = ntohs(reinterpret_cast<sockaddr_in&>(bound).sin_port);  // at the same place in sockaddr_in6
  Shared& shared = *state->shared;
  shared.loop.watch(state->listener, EPOLLIN, *state);
  shared.router.start_on(shared.loop);
  state->thread = std::thread([shared = state->shared] { shared->loop.run(); });
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

int Server::port() const { return state_->port; }

void Server::stop(int drain_ms) {
  if (!state_->thread.joinable()) return;
  Shared& shared = *state_->shared;
  shared.stopping = true;
  const auto each = [&shared](auto function) {
    const auto all = shared.connections;  // they leave the set as they close
    for (const auto& connection : all) function(*connection);
  };
  shared.loop.post([raw = state_.get(), each] {
    raw->close_listener();
    each([](Connection& connection) { connection.drain(); });
  });
  for (int waited_ms = 0; waited_ms < drain_ms && shared.answers_under_way > 0; waited_ms += 5) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  shared.loop.post([each] { each([](Connection& connection) { connection.close(); }); });
  shared.pool.join();
  shared.loop.post([&shared] { shared.router.stop_on_loop(); });
  shared.loop.stop();
  state_->thread.join();
  shared.loop.close();
}

Server::~Server() { stop(0); }

}  // namespace capstan::http
