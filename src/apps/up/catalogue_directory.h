// What the gateway serves: the controller's services, and the models of the catalogue that an OpenAI-compatible server
// elsewhere has, under their names and their aliases.
//
// A catalogue's source is the base URL that an OpenAI client would be given ("https://host/v1"; without a path, /v1). A
// service of the same model goes before it. Threads: safe from any thread.
#pragma once

#include "gateway/gateway.h"
#include "store/catalogue.h"

namespace capstan::apps {

class CatalogueDirectory final : public gateway::ReplicaDirectory {
 public:
  // Both outlive it.
  CatalogueDirectory(const gateway::ReplicaDirectory& services, const store::Catalogue& catalogue)
      : services_(services), catalogue_(catalogue) {}
  std::vector<gateway::Replica> replicas() const override;
  std::uint64_t version() const override;
  std::vector<std::pair<std::string, std::string>> waiting() const override { return services_.waiting(); }
  std::string resolve(const std::string& model, std::string_view request_id) const override;
  std::vector<std::string> aliases() const override;
  std::string starter(const std::string& model) const override { return services_.starter(model); }

 private:
  const gateway::ReplicaDirectory& services_;
  const store::Catalogue& catalogue_;
};

}  // namespace capstan::apps
