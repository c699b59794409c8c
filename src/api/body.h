// The JSON object in the body of a request, read member by member; the first thing that is wrong is kept.
//
//   Body body(request, now_ms);
//   Reserve what;
//   body.need("name", what.name);
//   body.read("hosts", what.hosts);
//   body.read_time("until", what.until_ms);
//   CAPSTAN_CHECK(body.finish());          // also refuses members that nobody asked for
//
// Failure: kInvalid with the member's name as field.  Threads: none shared.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "http/message.h"

namespace capstan::api {

// Milliseconds since 1970 of "now", "+2h30m" (from now) or "2026-11-24T09:00[:00][Z]" (always UTC; a blank
// may stand for the T).
Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ms);

class Body {
 public:
  Body(const http::Request& request, std::int64_t now_ms);
  // Absent or null: stays as it is.
  void read(std::string_view key, std::string& out);
  void read(std::string_view key, std::int64_t& out);
  void read(std::string_view key, bool& out);
  void read(std::string_view key, std::vector<std::string>& out);
  void read(std::string_view key, std::vector<std::int64_t>& out);
  // An integer is milliseconds since 1970, a string as parse_time reads it.
  void read_time(std::string_view key, std::int64_t& out);
  // An integer is milliseconds, a string a duration such as "10m".
  void read_duration(std::string_view key, std::int64_t& out_ms);
  // The same as read, but it must be there.
  template <class Out>
  void need(std::string_view key, Out& out) {
    if (peek(key) == nullptr) wrong(key, "is missing");
    read(key, out);
  }
  void need_time(std::string_view key, std::int64_t& out);
  Result<void> finish();

 private:
  const Json* peek(std::string_view key) const;
  const Json* take(std::string_view key);
  void read_quantity(std::string_view key, const std::function<Result<std::int64_t>(std::string_view)>& parse,
                     std::int64_t& out);
  void wrong(std::string_view key, std::string message);

  Json json_;
  std::int64_t now_ms_;
  std::vector<std::string_view> known_;
  Result<void> result_;
};

}  // namespace capstan::api
