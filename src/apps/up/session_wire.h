// How the gateway's containers are asked for at the session host: the headers, and what its refusals mean. Private to this
// folder.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "agents/sessions/owner.h"
#include "base/json.h"
#include "gateway/admission.h"
#include "gateway/openai/container_host.h"

namespace capstan::apps {

inline constexpr std::string_view kContainerWord = "openai_container";  // in a session's metadata: the container's id
inline constexpr std::string_view kContainerNameWord = "openai_container_name";
inline constexpr int kSessionHostTimeoutMs = 30'000;  // for what is not code

inline std::string owner_header(const gateway::Caller& caller) {
  return agents::header_of({caller.organisation_number, caller.project_number, caller.key_number});
}

inline Error session_error(int status, std::string_view body) {
  const auto json = Json::parse(body);
  const std::string message =
      json ? json->get_string("message").value_or("") : fmt::format("the sandboxes' host answered {}", status);
  const Code code = status == 429   ? Code::kExhausted
                    : status == 404 ? Code::kNotFound
                    : status == 400 ? Code::kInvalid
                    : status == 501 ? Code::kUnsupported
                                    : Code::kUnavailable;
  return {code, message, {}};
}

inline Error no_container(std::string_view id) {
  return {Code::kNotFound,
          fmt::format("Container with id '{}' not found; containers end when they were idle for {} minutes.", id,
                      gateway::openai::kContainerIdleMinutes),
          {}};
}

}  // namespace capstan::apps
