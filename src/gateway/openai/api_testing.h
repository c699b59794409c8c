// Of this folder's tests: a directory of replicas that is what it is set to, and callers by their bearer.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gateway/gateway.h"

namespace capstan::gateway::openai {

class Directory final : public ReplicaDirectory {
 public:
  std::vector<Replica> list;
  std::vector<Replica> replicas() const override { return list; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }
};

// A request that uploads a file.
inline http::Request upload_request(const std::string& name, const std::string& content, const std::string& purpose) {
  return {.method = "POST",
          .target = "/v1/files",
          .headers = {{"content-type", "multipart/form-data; boundary=b"}},
          .body = fmt::format("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\r\n{}\r\n--b\r\n"
                              "Content-Disposition: form-data; name=\"purpose\"\r\n\r\n{}\r\n--b--\r\n",
                              name, content, purpose)};
}

// The caller's project is what stands behind "Bearer "; "wrong" is none.
class Projects final : public Authenticator {
 public:
  std::expected<CallerPtr, ApiError> authenticate(const http::Request& request) override {
    const std::string bearer = request.headers.get("authorization");
    if (bearer == "Bearer wrong") return std::unexpected(ApiError{.status = 401, .message = "no such key"});
    return std::make_shared<Caller>(
        Caller{.organisation = "acme", .project = bearer.empty() ? "web" : bearer.substr(7)});
  }
};

}  // namespace capstan::gateway::openai
