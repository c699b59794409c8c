// How it works: one thread accepts, one thread per client serves its requests in order; the map is under a
// mutex and a condition variable wakes the gets that wait. At the end the sockets are shut down, which
// unblocks every thread. The number of clients is the number of ranks, so a thread each is cheap for the
// second that this lives.
#include "trainer/rendezvous.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

namespace capstan::trainer {
namespace {

constexpr char kGreeting[] = "CAPRDV01";

bool send_all(int socket, const void* bytes, std::size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t sent = ::send(socket, at, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
    count -= static_cast<std::size_t>(sent);
  }
  return true;
}

bool receive_all(int socket, void* bytes, std::size_t count) {
  char* at = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t got = ::recv(socket, at, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    count -= static_cast<std::size_t>(got);
  }
  return true;
}

void append_u32(std::string& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

bool receive_u32(int socket, std::uint32_t& value) {
  unsigned char bytes[4];
  if (!receive_all(socket, bytes, 4)) return false;
  value = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<std::uint32_t>(bytes[3]) << 24;
  return true;
}

bool receive_string(int socket, std::uint32_t length_max, std::string& text) {
  std::uint32_t length = 0;
  if (!receive_u32(socket, length) || length > length_max) return false;
  text.resize(length);
  return receive_all(socket, text.data(), length);
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const RendezvousAddress& address, bool passive) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  const int status = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  if (status != 0) {
    return fail(Code::kUnavailable, "cannot resolve MASTER_ADDR '{}': {}", address.host,
                ::gai_strerror(status));
  }
  return AddressList(list, &::freeaddrinfo);
}

int try_connect(const addrinfo& target) {
  const int socket = ::socket(target.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  if (::connect(socket, target.ai_addr, target.ai_addrlen) == 0) return socket;
  const int error = errno;
  ::close(socket);
  errno = error;
  return -1;
}

}  // namespace

struct RendezvousServer::State {
  int listener = -1;
  std::uint16_t port = 0;
  std::string run;
  std::size_t clients_max = 1;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::map<std::string, std::string> values;
  std::vector<int> sockets;
  std::vector<std::thread> clients;
  std::thread acceptor;

  void accept_clients();
  void serve(int socket);
  bool answer(int socket);
  bool answer_get(int socket, const std::string& key);
};

void RendezvousServer::State::accept_clients() {
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    const std::lock_guard lock(mutex);
    if (socket < 0 || stopping) {
      if (socket >= 0) ::close(socket);
      return;
    }
    if (sockets.size() >= clients_max) {
      ::close(socket);
      continue;
    }
    sockets.push_back(socket);
    clients.emplace_back([this, socket] { serve(socket); });
  }
}

void RendezvousServer::State::serve(int socket) {
  char greeting[8];
  std::string name;
  if (receive_all(socket, greeting, 8) && std::memcmp(greeting, kGreeting, 8) == 0 &&
      receive_string(socket, kKeyBytesMax, name) && name == run) {
    while (answer(socket)) {
    }
  }
  ::shutdown(socket, SHUT_RDWR);
}

bool RendezvousServer::State::answer(int socket) {
  char operation = 0;
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
  if (!receive_all(socket, &operation, 1) || !receive_u32(socket, key_bytes) ||
      !receive_u32(socket, value_bytes) || key_bytes > kKeyBytesMax || value_bytes > kValueBytesMax) {
    return false;
  }
  std::string key(key_bytes, '\0');
  std::string value(value_bytes, '\0');
  if (!receive_all(socket, key.data(), key_bytes) || !receive_all(socket, value.data(), value_bytes))
    return false;
  if (operation == 'G') return answer_get(socket, key);
  if (operation != 'S') return false;
  {
    const std::lock_guard lock(mutex);
    if (values.size() >= kRendezvousKeysMax) return false;
    values.insert_or_assign(std::move(key), std::move(value));
  }
  changed.notify_all();
  const char empty[4] = {};
  return send_all(socket, empty, 4);
}

bool RendezvousServer::State::answer_get(int socket, const std::string& key) {
  std::string reply;
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return stopping || values.contains(key); });
    if (stopping) return false;
    const std::string& value = values.at(key);
    append_u32(reply, static_cast<std::uint32_t>(value.size()));
    reply += value;
  }
  return send_all(socket, reply.data(), reply.size());
}

RendezvousServer::RendezvousServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<RendezvousServer>> RendezvousServer::start(const RendezvousAddress& address,
                                                                  int clients_max) {
  CAPSTAN_TRY(const AddressList list, resolve(address, true));
  auto state = std::make_unique<State>();
  state->listener = ::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (state->listener < 0) return fail_errno("cannot make the rendezvous socket", errno);
  const int one = 1;
  ::setsockopt(state->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(state->listener, list->ai_addr, list->ai_addrlen) != 0 || ::listen(state->listener, 1024) != 0) {
    const int error = errno;
    ::close(state->listener);
    return fail(Code::kUnavailable, "rank 0 cannot listen on MASTER_ADDR:MASTER_PORT = {}:{}: {}",
                address.host, address.port, std::strerror(error));
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  ::getsockname(state->listener, reinterpret_cast<sockaddr*>(&bound), &length);
  state->port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                                  : reinterpret_cast<sockaddr_in&>(bound).sin_port);
  state->run = address.run;
  // Twice the ranks: a client that is killed and started again while the gang forms finds room.
  state->clients_max = static_cast<std::size_t>(clients_max) * 2 + 8;
  State* raw = state.get();
  state->acceptor = std::thread([raw] { raw->accept_clients(); });
  return std::unique_ptr<RendezvousServer>(new RendezvousServer(std::move(state)));
}

std::uint16_t RendezvousServer::port() const { return state_->port; }

RendezvousServer::~RendezvousServer() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    for (const int socket : state_->sockets) ::shutdown(socket, SHUT_RDWR);
  }
  ::shutdown(state_->listener, SHUT_RDWR);
  state_->changed.notify_all();
  state_->acceptor.join();
  for (std::thread& client : state_->clients) client.join();
  for (const int socket : state_->sockets) ::close(socket);
  ::close(state_->listener);
}

Result<RendezvousClient> RendezvousClient::connect(const RendezvousAddress& address, int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  CAPSTAN_TRY(const AddressList list, resolve(address, false));
  int error = 0;
  for (;;) {
    for (const addrinfo* target = list.get(); target != nullptr; target = target->ai_next) {
      const int socket = try_connect(*target);
      if (socket < 0) {
        error = errno;
        continue;
      }
      const timeval wait{.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
      ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
      const int one = 1;
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      std::string hello(kGreeting, 8);
      append_u32(hello, static_cast<std::uint32_t>(address.run.size()));
      hello += address.run;
      RendezvousClient client(socket);
      if (send_all(socket, hello.data(), hello.size())) return client;
      error = errno;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Code::kTimeout, "rank 0 was not reachable at {}:{} within {} ms: {}", address.host,
                  address.port, timeout_ms, std::strerror(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

RendezvousClient::RendezvousClient(RendezvousClient&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)) {}

RendezvousClient& RendezvousClient::operator=(RendezvousClient&& other) noexcept {
  std::swap(socket_, other.socket_);
  return *this;
}

RendezvousClient::~RendezvousClient() {
  if (socket_ >= 0) ::close(socket_);
}

Result<void> RendezvousClient::set(const std::string& key, const std::string& value) {
  if (key.size() > kKeyBytesMax || value.size() > kValueBytesMax) {
    return fail(Code::kInvalid, "a rendezvous entry of {} + {} bytes is too long", key.size(), value.size());
  }
  std::string request = "S";
  append_u32(request, static_cast<std::uint32_t>(key.size()));
  append_u32(request, static_cast<std::uint32_t>(value.size()));
  request += key;
  request += value;
  std::string ignored;
  if (!send_all(socket_, request.data(), request.size()) || !receive_string(socket_, 0, ignored)) {
    return fail(Code::kUnavailable, "the rendezvous with rank 0 broke off while publishing an address");
  }
  return {};
}

Result<std::string> RendezvousClient::get(const std::string& key) {
  std::string request = "G";
  append_u32(request, static_cast<std::uint32_t>(key.size()));
  append_u32(request, 0);
  request += key;
  std::string value;
  errno = 0;
  if (send_all(socket_, request.data(), request.size()) && receive_string(socket_, kValueBytesMax, value)) {
    return value;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return fail(Code::kTimeout, "not all ranks came to the rendezvous in time (waiting for '{}')", key);
  }
  return fail(Code::kUnavailable, "the rendezvous with rank 0 broke off (waiting for '{}')", key);
}

Result<std::string> RendezvousClient::local_address() const {
  sockaddr_storage local{};
  socklen_t length = sizeof local;
  if (::getsockname(socket_, reinterpret_cast<sockaddr*>(&local), &length) != 0) {
    return fail_errno("cannot read the local address", errno);
  }
  char text[INET6_ADDRSTRLEN] = {};
  const void* bytes = local.ss_family == AF_INET6
                          ? static_cast<const void*>(&reinterpret_cast<sockaddr_in6&>(local).sin6_addr)
                          : static_cast<const void*>(&reinterpret_cast<sockaddr_in&>(local).sin_addr);
  if (::inet_ntop(local.ss_family, bytes, text, sizeof text) == nullptr) {
    return fail_errno("cannot print the local address", errno);
  }
  return std::string(text);
}

}  // namespace capstan::trainer
