// How: one thread accepts and runs the event loop. Stopping goes from the outside in: no new connections, a
// wait for the answers under way, all connections closed (which tells their handlers), the handlers' ends
// awaited, then the event loop's.
#include "http/server.h"

#include <chrono>
#include <thread>

#include "http/connection.h"

namespace capstan::http {

struct Server::State {
  std::shared_ptr<Shared> shared;  // shared with the connections; before what lives on its event loop
  tcp::acceptor acceptor;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  asio::ssl::context tls{asio::ssl::context::tls_server};
  bool use_tls = false;
  std::thread thread;
  int port = 0;

  State(const ServerOptions& options, Handler handler)
      : shared(std::make_shared<Shared>(options.limits, std::move(handler), options.threads)),
        acceptor(shared->io),
        work(shared->io.get_executor()) {}

  void accept() {
    acceptor.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor.is_open()) return;
      if (error) return retry();
      if (shared->connections >= shared->limits.connections_max) {
        refuse_full(std::move(socket));
      } else if (use_tls) {
        serve_tls(shared, std::move(socket), tls);
      } else {
        serve_plain(shared, std::move(socket));
      }
      accept();
    });
  }

  // Out of descriptors, usually: accept again a little later instead of spinning.
  void retry() {
    auto timer = std::make_shared<asio::steady_timer>(shared->io, std::chrono::milliseconds(50));
    timer->async_wait([this, timer](beast::error_code error) {
      if (!error && acceptor.is_open()) accept();
    });
  }

  static void refuse_full(tcp::socket socket) {
    static constexpr std::string_view kFull =
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: "
        "close\r\n\r\n";
    beast::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(kFull), ignored);
  }
};

namespace {

Result<void> load_tls(asio::ssl::context& context, const ServerOptions& options) {
  beast::error_code error;
  context.set_options(
      asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1,
      error);
  context.use_certificate_chain_file(options.tls_certificate, error);
  if (error)
    return fail(Code::kInvalid, "cannot use TLS certificate {}: {}", options.tls_certificate,
                error.message());
  context.use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
  if (error) return fail(Code::kInvalid, "cannot use TLS key {}: {}", options.tls_key, error.message());
  return {};
}

Result<void> listen(tcp::acceptor& acceptor, const ServerOptions& options) {
  beast::error_code error;
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  const auto address = asio::ip::make_address(host, error);
  if (error)
    return fail(Code::kInvalid, "'{}' is not an address to listen on; write for example 127.0.0.1",
                options.host);
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (error == asio::error::address_in_use)
    return fail(Code::kConflict, "port {} on {} is in use; choose another", options.port, host);
  if (!error) acceptor.listen(1024, error);
  if (error) return fail(Code::kIo, "cannot listen on {}:{}: {}", host, options.port, error.message());
  return {};
}

}  // namespace

Server::Server(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Handler handler) {
  const bool use_tls = !options.tls_certificate.empty() || !options.tls_key.empty();
  if (!is_loopback(options.host) && !use_tls) {
    return fail(Code::kInvalid,
                "listening on {} needs TLS: give a certificate and a key, or listen on 127.0.0.1",
                options.host);
  }
  auto state = std::make_shared<State>(options, std::move(handler));
  state->use_tls = use_tls;
  if (use_tls) CAPSTAN_CHECK(load_tls(state->tls, options));
  CAPSTAN_CHECK(listen(state->acceptor, options));
  state->port = state->acceptor.local_endpoint().port();
  state->accept();
  state->thread = std::thread([shared = state->shared] { shared->io.run(); });
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

int Server::port() const { return state_->port; }

void Server::stop(int drain_ms) {
  if (!state_->thread.joinable()) return;
  Shared& shared = *state_->shared;
  shared.stopping = true;
  asio::post(shared.io, [raw = state_.get()] {
    beast::error_code ignored;
    raw->acceptor.close(ignored);
  });
  for (int waited_ms = 0; waited_ms < drain_ms && shared.answers_under_way > 0; waited_ms += 5) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  asio::post(shared.io, [&shared] { shared.close_all(); });
  shared.pool.join();
  state_->work.reset();
  shared.stopped = true;
  shared.io.stop();
  state_->thread.join();
  // The handlers of what was closed: each holds its connection, and would keep it and this loop alive for
  // ever.
  shared.io.restart();
  shared.io.poll();
}

Server::~Server() { stop(0); }

}  // namespace capstan::http
