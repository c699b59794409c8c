// HTTP messages: what a server receives and answers, what a client sends and gets.
//
// Values. Header names compare without case and keep their order; a repeated name gives several entries.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "http/body_file.h"

namespace capstan::http {

class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> list) : entries_(list) {}
  void set(std::string_view name, std::string value);  // replaces all of that name
  void add(std::string name, std::string value) { entries_.emplace_back(std::move(name), std::move(value)); }
  // The first of that name; nullptr if there is none.
  const std::string* find(std::string_view name) const;
  std::string get(std::string_view name) const;  // "" if there is none
  int count(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& all() const { return entries_; }

 private:
  std::vector<std::pair<std::string, std::string>> entries_;
};

struct Request {
  std::string method = "GET";
  std::string target = "/";  // as sent: path, '?' and query
  Headers headers = {};
  std::string body = {};
  // Or, where Router::allow_large_bodies() says so: a large body; `body` is empty then.
  std::shared_ptr<const BodyFile> body_file = {};  // shared with those to whom the request is passed on
  // Filled in by the server:
  std::string path = {};  // decoded, without the query
  std::vector<std::pair<std::string, std::string>> query = {};
  std::vector<std::pair<std::string, std::string>> params = {};  // of the route's pattern
  std::string remote_address = {};
  std::string_view http_version = "1.1";  // "1.0", "1.1" or "2"; HTTP/2's :authority stands as header "host"

  std::optional<std::string> query_value(std::string_view name) const;
  std::string param(std::string_view name) const;  // "" if the route has none of that name
  std::string_view content() const { return body_file ? body_file->bytes() : std::string_view(body); }
};

struct Response {
  int status = 200;
  Headers headers = {};
  std::string body = {};
  std::shared_ptr<const BodyFile> body_file = {};  // of a server's answer, in place of `body`: sent as it is read

  std::string_view content() const { return body_file ? body_file->bytes() : std::string_view(body); }
  static Response text(int status, std::string body,
                       std::string_view content_type = "text/plain; charset=utf-8");
  static Response json(int status, const Json& body);
};

// Splits and decodes the target of `request` into path and query. Refuses what is no absolute path or has a
// bad escape.
Result<void> parse_target(Request& request);
Result<std::string> percent_decode(std::string_view text, bool plus_is_space);
std::string percent_encode(std::string_view text);
std::string_view reason_phrase(int status);

struct Url {
  bool tls = false;
  std::string host;
  int port = 80;
  std::string path;  // "/" at least
};
Result<Url> parse_url(std::string_view text);

}  // namespace capstan::http
