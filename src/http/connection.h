// One connection of the server. Private to http/.
#pragma once

// clang-format off: Boost 1.81's Asio uses std::exchange and leaves its include to others.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>
// clang-format on

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

// What connections share with their server. It owns the event loop, so that an answer kept by a handler may
// outlive the server.
struct Shared {
  asio::io_context io{1};
  ServerLimits limits;
  Handler handler;
  asio::thread_pool pool;
  std::atomic<int> connections{0};
  std::atomic<int> answers_under_way{0};
  std::atomic<bool> stopping{false};  // no request after the one under way
  std::atomic<bool> stopped{false};   // the event loop has ended: nothing is posted any more
  Shared(const ServerLimits& l, Handler h, int threads)
      : limits(l), handler(std::move(h)), pool(static_cast<std::size_t>(threads)) {}

  // Open connections, by address, each with what closes it on the I/O thread.
  void add(const void* connection, std::function<void()> close) {
    const std::scoped_lock lock(mutex);
    open.emplace(connection, std::move(close));
  }
  void remove(const void* connection) {
    const std::scoped_lock lock(mutex);
    open.erase(connection);
  }
  void close_all() {
    std::vector<std::function<void()>> all;
    {
      const std::scoped_lock lock(mutex);
      for (const auto& [connection, close] : open) all.push_back(close);
    }
    for (const auto& close : all) close();
  }

 private:
  std::mutex mutex;
  std::map<const void*, std::function<void()>> open;
};

// Starts serving the socket; the connection owns itself until it closes.
void serve_plain(std::shared_ptr<Shared> shared, tcp::socket socket);
void serve_tls(std::shared_ptr<Shared> shared, tcp::socket socket, asio::ssl::context& context);

}  // namespace capstan::http
