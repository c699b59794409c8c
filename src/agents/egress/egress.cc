#include "agents/egress/egress.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "agents/egress/proxy_connection.h"

namespace capstan::agents {
namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr std::int64_t kAgainMs = 200;

}  // namespace

std::shared_ptr<Egress> Egress::start(http::EventLoop& loop, std::shared_ptr<Lookups> lookups, sandbox::Fd listener,
                                      HostRules rules, EgressLimits limits) {
  auto egress = std::make_shared<Egress>(loop, std::move(lookups), std::move(listener), std::move(rules), limits);
  loop.post([egress] { egress->begin(); });
  return egress;
}

Egress::Egress(http::EventLoop& loop, std::shared_ptr<Lookups> lookups, sandbox::Fd listener, HostRules rules,
               EgressLimits limits)
    : loop_(loop), lookups_(std::move(lookups)), limits_(limits), listener_(std::move(listener)),
      again_(loop, [this] { begin(); }), rules_(std::move(rules)) {}
Egress::~Egress() = default;

HostRules Egress::rules() const {
  const std::lock_guard lock(mutex_);
  return rules_;
}

void Egress::set_rules(HostRules rules) {
  const std::lock_guard lock(mutex_);
  rules_ = std::move(rules);
}

void Egress::begin() {
  if (stopped_) return;
  loop_.watch(listener_.get(), EPOLLIN, *this);
  watched_ = true;
}

void Egress::stop() {
  loop_.post([self = shared_from_this()] {
    if (self->watched_) self->loop_.unwatch(self->listener_.get(), *self);
    self->watched_ = false;
    self->stopped_ = true;
    self->again_.disarm();
    self->listener_.reset();
    for (const auto& connection : std::set(self->connections_)) connection->close();
  });
}

void Egress::on_ready(std::uint32_t) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sandbox::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) {
      if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
      loop_.unwatch(listener_.get(), *this);
      watched_ = false;
      return again_.arm(kAgainMs);
    }
    const auto connection = std::make_shared<ProxyConnection>(*this, std::move(client));
    connections_.insert(connection);
    if (connections_.size() > limits_.connections_max)
      connection->refuse(503, fmt::format("this sandbox has {} connections to the outside, the most that it may",
                                          limits_.connections_max));
    else
      connection->begin();
  }
}

}  // namespace capstan::agents
