// Reads HTTP/1.1 messages from bytes as they come: requests (strictly, since strangers write them) and responses.
// Private to http/.
//
// Beast's parser underneath; stricter than it where two servers could read one message differently (smuggling):
// a bare LF, a folded header, Content-Length twice or with Transfer-Encoding, any coding but chunked, and HTTP/1.0 with it
// are refused. Cost: one pass; header fields are copied once. Bounds: header bytes and fields, body bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::http {

// Finds the end of a header that comes in pieces, and what no header may hold.
class HeaderScan {
 public:
  enum class Result { kMore, kEnd, kBareLineFeed, kFolded };
  // `bytes` from the header's start, longer each time. At kEnd, end() is the length with the empty line.
  Result scan(std::string_view bytes);
  std::size_t end() const { return end_; }
  void reset() { *this = HeaderScan(); }

 private:
  std::size_t line_ = 0;  // start of the line under way
  std::size_t end_ = 0;
};

class RequestReader {
 public:
  struct Limits {
    std::uint64_t header_bytes_max;
    std::uint64_t body_bytes_max;
    // Of requests whose bodies may have more; 0 for the others. May be empty.
    std::function<std::uint64_t(std::string_view method, std::string_view target)> large_body_max = {};
  };
  struct Refusal {
    int status = 0;
    std::string message = {};
  };
  explicit RequestReader(const Limits& limits);
  ~RequestReader();
  // Consumes bytes of one message; returns how many. Bytes of an incomplete header are not consumed: they
  // must be there again, with more behind them.
  std::size_t feed(std::string_view bytes);
  bool header_done() const;
  bool done() const;                                   // the message is whole
  bool failed() const { return refusal_.status != 0; }  // by refusal()
  const Refusal& refusal() const { return refusal_; }
  bool keep_alive() const;
  bool expects_continue() const;
  bool may_be_large() const;       // by Limits::large_body_max, once the header is there
  std::size_t body_bytes() const;  // so far, without what take_body() took
  std::string take_body();         // what has come of it
  Request take();                  // and ready for the next message
  void reset();

 private:
  struct Parser;
  void refuse(int status, std::string message);
  Limits limits_;
  HeaderScan scan_;
  Refusal refusal_;
  std::unique_ptr<Parser> parser_;
};

// Whether the next message stays on the connection is told by keep_alive() at the end.
class ResponseReader {
 public:
  ResponseReader();
  ~ResponseReader();
  using OnHead = std::function<void(Response& head)>;
  using OnPiece = std::function<void(std::string_view piece)>;
  // Interim answers (1xx) are skipped. `keep_going` is asked after each callback, which may end the reading.
  struct Callbacks {
    OnHead on_head;
    OnPiece on_piece;
    std::function<bool()> keep_going;
  };
  void start(bool head_request);
  // How many bytes were consumed; as in RequestReader for an incomplete header.
  Result<std::size_t> feed(std::string_view bytes, const Callbacks& callbacks);
  Result<void> feed_end();  // the connection ended; an error unless that is the answer's end
  bool done() const;
  bool any_bytes() const { return any_bytes_; }
  bool keep_alive() const;

 private:
  struct Parser;
  HeaderScan scan_;
  bool head_request_ = false;
  bool any_bytes_ = false;
  std::unique_ptr<Parser> parser_;
};

}  // namespace capstan::http
