// A session host and how a request gets there: what goes along, what stays here, what an answer must be.
//
// Threads: any; pure but for ask().
#pragma once

#include <string>

#include "agents/front/host_address.h"
#include "agents/front/places.h"
#include "http/client.h"
#include "http/relay.h"

namespace capstan::agents {

struct Destination {
  std::string url, prefix, token;
  std::string incarnation = {};  // which the answers of another host's worker carry
  std::string who;

  static Destination of(const HostAddress::Host& host) {
    return {.url = host.url, .prefix = "", .token = host.token, .who = "the sandboxes' host"};
  }
  static Destination of(const Place& place);

  // The request as it travels: without keys, with the destination's token and the owner ("": none).
  http::Request request(http::Request from, const std::string& owner) const;
  // Whether the answer is the destination's; takes out of its headers what is ours.
  Result<void> check(http::Response& answer) const;
  // A whole answer, whatever its status. Blocks, kAnswerMs at most. Failure: kUnavailable, with who.
  Result<http::Response> ask(http::Client& client, http::Request from, const std::string& owner) const;

  static constexpr int kConnectMs = 1'000, kAnswerMs = 5'000;
};

http::Response front_refusal(int status, std::string_view why);  // {"code", "message"}

}  // namespace capstan::agents
