// How: a blocking facade over asynchronous operations on a private io_context per request, run until the
// operation ends or its time is over. Kept connections wait in a small list by address.
#include "http/client.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <limits>
#include <list>
#include <mutex>
#include <set>
#include <utility>

namespace capstan::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = beast::http;
using tcp = asio::ip::tcp;

constexpr std::size_t kKeptMax = 64;
constexpr std::size_t kPieceBytes = 16u << 10;

// One connection with its own event loop, so that a request can block its caller and still have a time limit.
struct Link {
  asio::io_context io{1};
  tcp::socket socket{io};
  asio::ssl::context tls_context{asio::ssl::context::tls_client};
  std::optional<asio::ssl::stream<tcp::socket&>> tls;
  beast::flat_buffer buffer;
  std::string key;

  // Runs one asynchronous operation; true if it ended in time.
  bool run(int timeout_ms) {
    io.restart();
    io.run_for(std::chrono::milliseconds(timeout_ms));
    if (io.stopped()) return true;
    beast::error_code ignored;
    socket.close(ignored);
    io.run();  // lets the operation end with its error
    return false;
  }
};

std::unexpected<Error> fail_io(std::string_view what, const Url& url, const beast::error_code& error) {
  return fail(Code::kUnavailable, "{} {}:{}: {}", what, url.host, url.port, error.message());
}

}  // namespace

struct Cancellation::State {
  std::mutex mutex;
  bool cancelled = false;
  int fd = -1;

  // False if it was cancelled before.
  bool attach(int descriptor) {
    const std::scoped_lock lock(mutex);
    fd = descriptor;
    return !cancelled;
  }
};

Cancellation::Cancellation() : state_(std::make_unique<State>()) {}
Cancellation::~Cancellation() = default;

void Cancellation::cancel() {
  const std::scoped_lock lock(state_->mutex);
  state_->cancelled = true;
  if (state_->fd >= 0) ::shutdown(state_->fd, SHUT_RDWR);
}

struct Client::State {
  std::mutex mutex;
  std::list<std::unique_ptr<Link>> kept;
  std::set<int> open;  // descriptors of requests under way, for cancel()
  bool cancelled = false;

  std::unique_ptr<Link> take(const std::string& key) {
    const std::scoped_lock lock(mutex);
    for (auto it = kept.begin(); it != kept.end(); ++it) {
      if ((*it)->key != key) continue;
      auto link = std::move(*it);
      kept.erase(it);
      return link;
    }
    return nullptr;
  }

  void keep(std::unique_ptr<Link> link) {
    const std::scoped_lock lock(mutex);
    if (cancelled) return;
    kept.push_back(std::move(link));
    if (kept.size() > kKeptMax) kept.pop_front();
  }

  bool begin(int fd) {
    const std::scoped_lock lock(mutex);
    if (!cancelled) open.insert(fd);
    return !cancelled;
  }
  void end(int fd) {
    const std::scoped_lock lock(mutex);
    open.erase(fd);
  }
  bool is_cancelled() {
    const std::scoped_lock lock(mutex);
    return cancelled;
  }
};

namespace {

Result<void> connect(Link& link, const Url& url, const ClientOptions& options) {
  beast::error_code error = asio::error::would_block;
  const std::string host = url.host == "localhost" ? "127.0.0.1" : url.host;
  std::vector<tcp::endpoint> endpoints;
  if (const auto address = asio::ip::make_address(host, error); !error) {
    endpoints.emplace_back(address, static_cast<unsigned short>(url.port));
  } else {
    tcp::resolver resolver(link.io);
    for (const auto& entry : resolver.resolve(host, std::to_string(url.port), error))
      endpoints.push_back(entry.endpoint());
    if (error) return fail(Code::kUnavailable, "cannot find host {}: {}", url.host, error.message());
  }
  asio::async_connect(link.socket, endpoints, [&](beast::error_code e, const tcp::endpoint&) { error = e; });
  if (!link.run(options.connect_timeout_ms))
    return fail(Code::kTimeout, "no connection to {}:{} within {} ms", url.host, url.port,
                options.connect_timeout_ms);
  if (error) return fail_io("cannot connect to", url, error);
  beast::error_code ignored;
  link.socket.set_option(tcp::no_delay(true), ignored);
  if (!url.tls) return {};
  link.tls_context.set_default_verify_paths(ignored);
  link.tls.emplace(link.socket, link.tls_context);
  link.tls->set_verify_mode(asio::ssl::verify_peer, ignored);
  link.tls->set_verify_callback(asio::ssl::host_name_verification(url.host), ignored);
  ::SSL_set_tlsext_host_name(link.tls->native_handle(), url.host.c_str());
  link.tls->async_handshake(asio::ssl::stream_base::client, [&](beast::error_code e) { error = e; });
  if (!link.run(options.connect_timeout_ms))
    return fail(Code::kTimeout, "TLS handshake with {} took over {} ms", url.host,
                options.connect_timeout_ms);
  if (error) return fail_io("TLS handshake failed with", url, error);
  return {};
}

// Applies an asynchronous operation to whichever stream the link has.
template <class Operation>
Result<void> perform(Link& link, const Url& url, int timeout_ms, std::string_view what,
                     Operation&& operation) {
  beast::error_code error;
  const auto done = [&](beast::error_code e, std::size_t) { error = e; };
  if (link.tls) {
    operation(*link.tls, done);
  } else {
    operation(link.socket, done);
  }
  if (!link.run(timeout_ms))
    return fail(Code::kTimeout, "{}:{} was silent for {} ms", url.host, url.port, timeout_ms);
  if (error && error != bhttp::error::need_buffer) return fail_io(what, url, error);
  return {};
}

bhttp::request<bhttp::string_body> to_beast(const Url& url, const Request& request) {
  bhttp::request<bhttp::string_body> message;
  message.version(11);
  message.method_string(request.method);
  message.target(request.target);
  for (const auto& [name, value] : request.headers.all()) message.insert(name, value);
  if (message.count(bhttp::field::host) == 0)
    message.set(bhttp::field::host, fmt::format("{}:{}", url.host, url.port));
  message.body() = request.body;
  if (!request.body.empty() || request.method == "POST" || request.method == "PUT") message.prepare_payload();
  return message;
}

Response head_of(const bhttp::response<bhttp::buffer_body>& message) {
  Response head;
  head.status = static_cast<int>(message.result_int());
  for (const auto& field : message)
    head.headers.add(std::string(field.name_string()), std::string(field.value()));
  return head;
}

struct Exchange {
  bool head_seen = false;  // after that, a failure is never retried
  bool reusable = false;
};

Result<void> exchange(Link& link, const Url& url, const Request& request, const ClientOptions& options,
                      const std::function<bool(const Response& head)>& on_head,
                      const std::function<bool(std::string_view)>& on_piece, Exchange& state) {
  auto message = to_beast(url, request);
  CAPSTAN_CHECK(perform(link, url, options.timeout_ms, "cannot send to",
                        [&](auto& stream, auto done) { bhttp::async_write(stream, message, done); }));
  bhttp::response_parser<bhttp::buffer_body> parser;
  parser.body_limit(std::numeric_limits<std::uint64_t>::max());
  parser.header_limit(64u << 10);
  if (request.method == "HEAD") parser.skip(true);
  CAPSTAN_CHECK(perform(link, url, options.timeout_ms, "no answer from", [&](auto& stream, auto done) {
    bhttp::async_read_header(stream, link.buffer, parser, done);
  }));
  state.head_seen = true;
  if (!on_head(head_of(parser.get()))) return fail(Code::kCancelled, "the request was given up");
  std::vector<char> piece(kPieceBytes);
  while (!parser.is_done()) {
    auto& body = parser.get().body();
    body.data = piece.data();
    body.size = piece.size();
    CAPSTAN_CHECK(
        perform(link, url, options.timeout_ms, "the answer broke off from",
                [&](auto& stream, auto done) { bhttp::async_read_some(stream, link.buffer, parser, done); }));
    const std::size_t count = piece.size() - body.size;
    if (count > 0 && !on_piece(std::string_view(piece.data(), count)))
      return fail(Code::kCancelled, "the request was given up");
  }
  state.reusable = parser.get().keep_alive();
  return {};
}

}  // namespace

Client::Client() : state_(std::make_unique<State>()) {}
Client::~Client() = default;

Result<void> Client::stream(std::string_view url_text, const Request& request, const ClientOptions& options,
                            const std::function<bool(const Response& head)>& on_head,
                            const std::function<bool(std::string_view piece)>& on_piece) {
  CAPSTAN_TRY(const Url url, parse_url(url_text));
  const std::string key = fmt::format("{}://{}:{}", url.tls ? "https" : "http", url.host, url.port);
  for (int attempt = 0;; ++attempt) {
    auto link = attempt == 0 ? state_->take(key) : nullptr;
    const bool kept = link != nullptr;
    if (!link) {
      link = std::make_unique<Link>();
      link->key = key;
      CAPSTAN_CHECK(connect(*link, url, options));
    }
    const int fd = static_cast<int>(link->socket.native_handle());
    if (!state_->begin(fd)) return fail(Code::kCancelled, "the client is shutting down");
    Cancellation::State* cancellation =
        options.cancellation != nullptr ? options.cancellation->state_.get() : nullptr;
    const bool cancelled_before = cancellation != nullptr && !cancellation->attach(fd);
    Exchange state;
    const auto result = cancelled_before ? Result<void>(fail(Code::kCancelled, "the request was given up"))
                                         : exchange(*link, url, request, options, on_head, on_piece, state);
    state_->end(fd);
    const bool cancelled = cancellation != nullptr && !cancellation->attach(-1);
    if (!result && cancelled) return fail(Code::kCancelled, "the request was given up");
    if (result) {
      if (state.reusable) state_->keep(std::move(link));
      return {};
    }
    if (state_->is_cancelled()) return fail(Code::kCancelled, "the client is shutting down");
    if (!kept || state.head_seen || result.error().code != Code::kUnavailable) return result;
  }
}

Result<Response> Client::request(std::string_view url, const Request& request, const ClientOptions& options) {
  Response response;
  bool too_large = false;
  const auto result = stream(
      url, request, options,
      [&](const Response& head) {
        response.status = head.status;
        response.headers = head.headers;
        return true;
      },
      [&](std::string_view piece) {
        response.body += piece;
        too_large = response.body.size() > options.body_bytes_max;
        return !too_large;
      });
  if (too_large)
    return fail(Code::kExhausted, "the answer of {} is larger than {} bytes", url, options.body_bytes_max);
  if (!result) return std::unexpected(result.error());
  return response;
}

void Client::cancel() {
  const std::scoped_lock lock(state_->mutex);
  state_->cancelled = true;
  // shutdown, not close: the descriptor stays valid for the thread that owns it.
  for (const int fd : state_->open) ::shutdown(fd, SHUT_RDWR);
}

void SseParser::feed(std::string_view piece) {
  pending_ += piece;
  std::size_t start = 0;
  for (std::size_t end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n', start)) {
    std::string_view line = std::string_view(pending_).substr(start, end - start);
    start = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) {
      if (!data_.empty()) on_event_(event_, std::string_view(data_).substr(0, data_.size() - 1));
      data_.clear();
      event_.clear();
      continue;
    }
    const auto colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "data") data_.append(value).append("\n");
    if (field == "event") event_ = value;
  }
  pending_.erase(0, start);
}

}  // namespace capstan::http
