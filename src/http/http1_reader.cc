// How: HeaderScan waits for a header's empty line, then Beast parses header and body with callbacks that fill our own
// message, so nothing is allocated for Beast's containers.
#include "http/http1_reader.h"

#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <optional>

#include "base/text.h"

namespace capstan::http {
namespace {

namespace beast = boost::beast;
namespace bhttp = beast::http;
using beast::error_code;
using View = beast::string_view;

constexpr std::size_t kFieldsMax = 256;
constexpr std::uint64_t kBodyReservedMax = 64u << 10;  // before any of it has come
constexpr std::size_t kRoomBehindBody = 64;            // so that a JSON parser that wants some finds it
constexpr std::size_t kResponseHeaderBytesMax = 256u << 10;

std::string_view text(View view) { return {view.data(), view.size()}; }

// A new parser, where the last one lay.
template <class Parser>
void renew(std::unique_ptr<Parser>& parser) {
  if (!parser) {
    parser = std::make_unique<Parser>();
    return;
  }
  std::destroy_at(parser.get());
  std::construct_at(parser.get());
}

// What both directions share of Beast's callbacks.
template <bool kRequest>
class MessageParser : public bhttp::basic_parser<kRequest> {
 public:
  Headers headers;
  std::string_view refused = {};  // why a field is refused

 protected:
  void on_field_impl(bhttp::field field, View name, View value, error_code& error) override {
    if (headers.all().size() == kFieldsMax) return refuse("more than 256 header fields", error);
    if (field == bhttp::field::content_length && ++lengths_ > 1)
      return refuse("a message has one Content-Length", error);
    if (field == bhttp::field::transfer_encoding) {
      if (++codings_ > 1 || !beast::iequals(value, "chunked"))
        return refuse("the only Transfer-Encoding is chunked", error);
    }
    if (lengths_ > 0 && codings_ > 0)
      return refuse("a message has either Content-Length or Transfer-Encoding", error);
    headers.add(std::string(text(name)), std::string(text(value)));
  }
  void refuse(std::string_view why, error_code& error) {
    refused = why;
    error = bhttp::error::bad_field;
  }
  void on_body_init_impl(boost::optional<std::uint64_t> const& length, error_code&) override {
    if (length) body_expected(std::min<std::uint64_t>(*length, kBodyReservedMax));
  }
  virtual void body_expected(std::uint64_t) {}
  void on_chunk_header_impl(std::uint64_t, View extensions, error_code& error) override {
    if (extensions.size() > 256) refuse("a chunk's extensions are longer than 256 bytes", error);
  }
  void on_finish_impl(error_code&) override {}
  int codings_ = 0;

 private:
  int lengths_ = 0;
};

}  // namespace

HeaderScan::Result HeaderScan::scan(std::string_view bytes) {
  while (true) {
    const auto feed = bytes.find('\n', line_);
    if (feed == std::string_view::npos) return Result::kMore;
    if (feed == line_ || bytes[feed - 1] != '\r') return Result::kBareLineFeed;
    if (feed == line_ + 1) {
      end_ = feed + 1;
      return Result::kEnd;
    }
    if (line_ > 0 && (bytes[line_] == ' ' || bytes[line_] == '\t')) return Result::kFolded;
    line_ = feed + 1;
  }
}

struct RequestReader::Parser final : MessageParser<true> {
  Request request;
  int hosts = 0;
  const Limits* limits = nullptr;
  std::uint64_t body_bytes_max = 0;

 private:
  void on_request_impl(bhttp::verb, View method, View target, int version, error_code&) override {
    request.method = text(method);
    request.target = text(target);
    const std::uint64_t large = limits->large_body_max ? limits->large_body_max(request.method, request.target) : 0;
    body_bytes_max = std::max(limits->body_bytes_max, large);
    body_limit(body_bytes_max);
    request.http_version = version == 11 ? "1.1" : "1.0";
    version_ = version;
  }
  void on_response_impl(int, View, int, error_code&) override {}
  void on_field_impl(bhttp::field field, View name, View value, error_code& error) override {
    if (field == bhttp::field::host) ++hosts;
    MessageParser::on_field_impl(field, name, value, error);
  }
  void on_header_impl(error_code& error) override {
    if (hosts > 1 || (version_ == 11 && hosts == 0)) refuse("a request names exactly one Host", error);
    if (codings_ > 0 && version_ < 11) refuse("HTTP/1.0 has no Transfer-Encoding", error);
  }
  void body_expected(std::uint64_t bytes) override {
    request.body.reserve(static_cast<std::size_t>(bytes) + kRoomBehindBody);
  }
  std::size_t on_body_impl(View body, error_code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& error) override {
    return on_body_impl(body, error);
  }
  int version_ = 11;
};

RequestReader::RequestReader(const Limits& limits) : limits_(limits) { reset(); }
RequestReader::~RequestReader() = default;

void RequestReader::reset() {
  scan_.reset();
  refusal_ = {};
  renew(parser_);
  parser_->header_limit(std::numeric_limits<std::uint32_t>::max());  // HeaderScan holds the limit
  parser_->limits = &limits_;
  parser_->eager(true);
}

void RequestReader::refuse(int status, std::string message) { refusal_ = {status, std::move(message)}; }

std::size_t RequestReader::feed(std::string_view bytes) {
  if (!parser_->got_some()) {
    const auto found = scan_.scan(bytes);
    const std::size_t length = found == HeaderScan::Result::kEnd ? scan_.end() : bytes.size();
    if (found == HeaderScan::Result::kBareLineFeed) {
      refuse(400, "not a valid HTTP/1.1 request: a header's lines end in CR LF");
    } else if (found == HeaderScan::Result::kFolded) {
      refuse(400, "not a valid HTTP/1.1 request: a header's field is one line");
    } else if (length > limits_.header_bytes_max) {
      refuse(431, fmt::format("the header is larger than {} bytes", limits_.header_bytes_max));
    }
    if (failed() || found == HeaderScan::Result::kMore) return 0;
  }
  std::size_t used = 0;
  while (used < bytes.size() && !parser_->is_done()) {
    error_code error;
    used += parser_->put(boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), error);
    if (error == bhttp::error::need_more) break;
    if (error == bhttp::error::body_limit) {
      refuse(413, fmt::format("the body is larger than {} bytes", parser_->body_bytes_max));
    } else if (error) {
      refuse(400, !parser_->refused.empty() ? std::string(parser_->refused)
                                            : fmt::format("not a valid HTTP/1.1 request: {}", error.message()));
    }
    if (error) break;
  }
  // What is left of a chunk's header waits for the rest of its line.
  if (!failed() && !parser_->is_done() && bytes.size() - used > limits_.header_bytes_max)
    refuse(400, "not a valid HTTP/1.1 request: a chunk's header is too long");
  return used;
}

bool RequestReader::header_done() const { return parser_->is_header_done(); }
bool RequestReader::done() const { return parser_->is_done(); }
bool RequestReader::keep_alive() const { return parser_->keep_alive(); }
bool RequestReader::expects_continue() const {
  const std::string* expect = parser_->headers.find("expect");
  return expect != nullptr && to_lower(*expect) == "100-continue";
}
bool RequestReader::may_be_large() const { return parser_->body_bytes_max > limits_.body_bytes_max; }
std::size_t RequestReader::body_bytes() const { return parser_->request.body.size(); }
std::string RequestReader::take_body() { return std::exchange(parser_->request.body, {}); }

Request RequestReader::take() {
  Request request = std::move(parser_->request);
  request.headers = std::move(parser_->headers);
  reset();
  return request;
}

struct ResponseReader::Parser final : MessageParser<false> {
  Response head;
  const Callbacks* callbacks = nullptr;
  bool interim = false;

 private:
  void on_request_impl(bhttp::verb, View, View, int, error_code&) override {}
  void on_response_impl(int status, View, int, error_code&) override { head.status = status; }
  void on_header_impl(error_code&) override {
    interim = head.status / 100 == 1;
    if (interim) return;
    head.headers = std::move(headers);
    callbacks->on_head(head);
  }
  std::size_t on_body_impl(View body, error_code& error) override {
    if (!callbacks->keep_going()) error = bhttp::error::end_of_stream;
    if (!error) callbacks->on_piece(text(body));
    return body.size();
  }
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& error) override {
    return on_body_impl(body, error);
  }
};

ResponseReader::ResponseReader() = default;
ResponseReader::~ResponseReader() = default;

void ResponseReader::start(bool head_request) {
  scan_.reset();
  head_request_ = head_request;
  any_bytes_ = false;
  renew(parser_);
  parser_->header_limit(std::numeric_limits<std::uint32_t>::max());
  parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
  parser_->eager(true);
  if (head_request) parser_->skip(true);
}

Result<std::size_t> ResponseReader::feed(std::string_view bytes, const Callbacks& callbacks) {
  std::size_t used = 0;
  any_bytes_ = any_bytes_ || !bytes.empty();
  parser_->callbacks = &callbacks;
  while (used < bytes.size() && !parser_->is_done()) {
    const std::string_view rest = bytes.substr(used);
    if (!parser_->got_some()) {
      const auto found = scan_.scan(rest);
      if (found == HeaderScan::Result::kBareLineFeed || found == HeaderScan::Result::kFolded ||
          rest.size() > kResponseHeaderBytesMax + (found == HeaderScan::Result::kEnd ? rest.size() - scan_.end() : 0))
        return fail(Code::kInvalid, "the answer's header is not valid HTTP/1.1");
      if (found == HeaderScan::Result::kMore) break;
    }
    error_code error;
    used += parser_->put(boost::asio::const_buffer(rest.data(), rest.size()), error);
    if (!callbacks.keep_going()) break;
    if (error == bhttp::error::need_more) {
      if (bytes.size() - used > kResponseHeaderBytesMax)
        return fail(Code::kInvalid, "a chunk's header of the answer is too long");
      break;
    }
    if (error) return fail(Code::kInvalid, "the answer is not valid HTTP/1.1: {}", error.message());
    if (parser_->is_done() && parser_->interim) {
      start(head_request_);
      any_bytes_ = true;
      parser_->callbacks = &callbacks;
    }
  }
  return used;
}

Result<void> ResponseReader::feed_end() {
  error_code error;
  if (parser_->got_some()) parser_->put_eof(error);
  if (!parser_->got_some() || error) return fail(Code::kUnavailable, "the connection was closed before the answer's end");
  return {};
}

bool ResponseReader::done() const { return parser_->is_done(); }
bool ResponseReader::keep_alive() const { return parser_->keep_alive(); }

}  // namespace capstan::http
