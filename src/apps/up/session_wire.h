// How the gateway's containers are asked for at the session host, in E2B's wire API over loopback: the headers, what refusals
// mean, and where a container is: a session whose metadata names it. Private to this folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "agents/front/host_address.h"
#include "base/json.h"
#include "gateway/admission.h"
#include "http/client.h"

namespace capstan::apps {

inline constexpr std::string_view kContainerWord = "openai_container";  // in a session's metadata: the container's id
inline constexpr std::string_view kContainerNameWord = "openai_container_name";
inline constexpr int kSessionHostTimeoutMs = 30'000;  // for what is not code

std::string owner_header(const gateway::Caller& caller);
Error session_error(int status, std::string_view body);

// Blocking.  Threads: any.  Failure: what the host refuses, or that it has no sandboxes, and why; kNotFound: the caller's project
// has no such container (any more).
class SessionWire {
 public:
  // `address`: the session host's file, as of HostAddress.
  explicit SessionWire(std::filesystem::path address) : address_(std::move(address)) {}

  struct Sandbox {
    std::string id, token;
  };
  Result<http::Response> ask(const gateway::Caller& caller, http::Request request);
  Result<Json> session_of(const gateway::Caller& caller, const std::string& container);  // as E2B describes it
  Result<Sandbox> sandbox_of(const gateway::Caller& caller, const std::string& container);
  // To the sandbox itself.
  Result<http::Response> ask(const gateway::Caller& caller, const Sandbox& sandbox, http::Request request);

 private:
  const agents::HostAddress address_;
  http::Client client_;
};

}  // namespace capstan::apps
