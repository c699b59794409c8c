// One connection of the server. Private to http/.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <string>

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "http/server.h"

namespace capstan::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
using tcp = asio::ip::tcp;
using TlsStream = asio::ssl::stream<tcp::socket>;

// What connections share with their server.
struct Shared {
  ServerLimits limits;
  Handler handler;
  asio::thread_pool pool;
  std::atomic<int> connections{0};
  std::atomic<int> answers_under_way{0};
  std::atomic<bool> stopping{false};
  Shared(const ServerLimits& l, Handler h, int threads) : limits(l), handler(std::move(h)), pool(static_cast<std::size_t>(threads)) {}
};

// Starts serving the socket; the connection owns itself until it closes.
void serve_plain(std::shared_ptr<Shared> shared, tcp::socket socket);
void serve_tls(std::shared_ptr<Shared> shared, tcp::socket socket, asio::ssl::context& context);

}  // namespace capstan::http
