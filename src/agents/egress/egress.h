// The way out of one sandbox: an HTTP proxy that listens inside and connects outside, to listed hosts only.
//
//   CAPSTAN_TRY(HostRules rules, HostRules::parse({"pypi.org"}));
//   auto egress = Egress::start(loop, std::make_shared<Lookups>(), sandbox::Fd(box->take_listener()), rules);
//   … programs inside: HTTPS_PROXY=http://127.0.0.1:3128 …
//   egress->stop();
//
// Takes CONNECT and requests with an http:// address. Names are looked up here, and the connection goes to an address that
// was looked at: not public ones are refused (host_rules.h), so a name that changes its mind gains nothing. Every refusal is
// an HTTP answer that says what is allowed. What goes through a tunnel is not looked into.
//
// Threads: methods from any thread; everything else on the loop's.  Bounds: EgressLimits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "agents/egress/host_rules.h"
#include "agents/egress/lookups.h"
#include "http/event_loop.h"
#include "sandbox/wire.h"

namespace capstan::agents {

struct EgressLimits {
  std::size_t connections_max = 64;
  std::int64_t head_ms_max = 30'000;     // until the request is whole
  std::int64_t connect_ms_max = 15'000;  // for each address that is tried
  std::int64_t idle_ms_max = 300'000;    // without a byte in either direction
};

class ProxyConnection;

class Egress final : public std::enable_shared_from_this<Egress>, private http::EventLoop::Watcher {
 public:
  static std::shared_ptr<Egress> start(http::EventLoop& loop, std::shared_ptr<Lookups> lookups, sandbox::Fd listener,
                                       HostRules rules, EgressLimits limits = {});
  // Private in spirit: start().
  Egress(http::EventLoop& loop, std::shared_ptr<Lookups> lookups, sandbox::Fd listener, HostRules rules, EgressLimits limits);
  ~Egress();

  HostRules rules() const;
  void set_rules(HostRules rules);  // of connections from now on
  void stop();                      // no new connections; open ones end

  // Bytes that went in and out since the last time this was asked.
  std::int64_t take_bytes_in() { return bytes_in_.exchange(0); }
  std::int64_t take_bytes_out() { return bytes_out_.exchange(0); }

 private:
  friend class ProxyConnection;
  void begin();
  void on_ready(std::uint32_t events) override;
  void forget(const std::shared_ptr<ProxyConnection>& connection) { connections_.erase(connection); }

  http::EventLoop& loop_;
  const std::shared_ptr<Lookups> lookups_;  // shared by the sandboxes of a host
  const EgressLimits limits_;
  sandbox::Fd listener_;
  http::EventLoop::Timer again_;  // accepts again, when this process had no descriptor left
  bool watched_ = false, stopped_ = false;               // of the loop
  std::set<std::shared_ptr<ProxyConnection>> connections_;  // of the loop; shared with lookups under way, weakly
  std::atomic<std::int64_t> bytes_in_{0}, bytes_out_{0};
  mutable std::mutex mutex_;
  HostRules rules_;  // under mutex_
};

}  // namespace capstan::agents
