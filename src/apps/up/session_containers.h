// Containers as sandbox sessions, for /v1/containers. Those that SessionCode makes are among them: a session whose metadata
// names a container. Nothing is kept here.
#pragma once

#include <filesystem>

#include "apps/up/session_wire.h"
#include "gateway/openai/container_host.h"

namespace capstan::apps {

class SessionContainers final : public gateway::openai::ContainerHost {
 public:
  // `address`: the session host's file, as of HostAddress.
  explicit SessionContainers(std::filesystem::path address) : wire_(std::move(address)) {}

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
  Result<Json> call(const gateway::Caller& caller, const SessionWire::Sandbox& sandbox, std::string_view method,
                    const std::string& path, int depth = 0);

  SessionWire wire_;
};

}  // namespace capstan::apps
