// Containers as sandbox sessions, for /v1/containers. Those that SessionCode makes are among them: a session whose metadata
// names a container. Requests go to the session host over loopback, in E2B's wire API; nothing is kept here.
#pragma once

#include <filesystem>

#include "agents/front/host_address.h"
#include "base/json.h"
#include "gateway/openai/container_host.h"
#include "http/client.h"

namespace capstan::apps {

class SessionContainers final : public gateway::openai::ContainerHost {
 public:
  // `address`: the session host's file, as of HostAddress.
  explicit SessionContainers(std::filesystem::path address) : address_(std::move(address)) {}

  Result<Container> create(const gateway::Caller& caller, const std::string& id, const std::string& name) override;
  Result<std::vector<Container>> list(const gateway::Caller& caller) override;
  Result<Container> about(const gateway::Caller& caller, const std::string& id) override;
  Result<void> remove(const gateway::Caller& caller, const std::string& id) override;
  Result<std::vector<File>> files(const gateway::Caller& caller, const std::string& id) override;
  Result<File> write(const gateway::Caller& caller, const std::string& id, const std::string& path,
                     std::string_view bytes) override;
  Result<std::string> read(const gateway::Caller& caller, const std::string& id, const std::string& path) override;
  Result<void> remove_file(const gateway::Caller& caller, const std::string& id, const std::string& path) override;

 private:
  Result<http::Response> ask(const gateway::Caller& caller, http::Request request);
  Result<Json> session_of(const gateway::Caller& caller, const std::string& id);
  // To the container's sandbox itself.
  Result<http::Response> ask_inside(const gateway::Caller& caller, const std::string& id, http::Request request);
  Result<Json> call(const gateway::Caller& caller, const std::string& id, std::string_view method, const Json& message);

  const agents::HostAddress address_;
  http::Client client_;
};

}  // namespace capstan::apps
