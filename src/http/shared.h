// What a server's connections share. Private to http/.
//
// Threads: of the loop, but for the atomics. Ownership: shared by the server, its connections, and answers that
// handlers kept, so that those may outlive the server.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "http/event_loop.h"
#include "http/server.h"

namespace capstan::http {

class Connection;

struct Shared {
  Shared(const ServerOptions& options, Router r)
      : limits(options.limits),
        body_room(new BodyFile::Room{.directory = options.body_directory, .bytes_max = options.limits.body_files_bytes_max}),
        router(std::move(r)),
        pool(static_cast<std::size_t>(options.threads)),
        scratch(kScratchBytes) {}

  // All connections share a budget for bodies that are still arriving: one now has `bytes`, and `counted` of it before. False
  // if it does not fit. What changes nothing touches nothing: 0 after 0 may be said on any thread.
  bool count_body(std::size_t& counted, std::size_t bytes) {
    if (bytes <= kBodyKeptBytes) bytes = 0;
    if (bytes != counted) {
      buffered_bytes += bytes;
      buffered_bytes -= std::exchange(counted, bytes);
    }
    return bytes == 0 || buffered_bytes <= limits.buffered_bytes_max;
  }

  static constexpr std::size_t kBodyKeptBytes = 64u << 10;  // below this a body counts nothing against the common budget
  static constexpr std::size_t kScratchBytes = 64u << 10;
  const ServerLimits limits;
  const std::shared_ptr<BodyFile::Room> body_room;  // shared with the bodies, which handlers may keep
  const Router router;
  EventLoop loop;
  boost::asio::thread_pool pool;  // handlers that may block
  std::set<std::shared_ptr<Connection>> connections;
  std::vector<char> scratch;  // what one read brings; connections keep only what is incomplete
  std::uint64_t buffered_bytes = 0;  // of requests' bodies that are not complete
  std::atomic<int> answers_under_way{0};
  std::atomic<bool> stopping{false};  // no request after the one under way
};

}  // namespace capstan::http
