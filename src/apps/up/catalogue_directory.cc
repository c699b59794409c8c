#include "apps/up/catalogue_directory.h"

#include <algorithm>
#include <set>

#include "http/message.h"
#include "routing/routing.h"

namespace capstan::apps {
namespace {

constexpr std::uint64_t kCatalogueVersions = 1u << 20;  // of the services' version, so that neither's change is lost

// "" for a URL without a path; else without the slash at its end.
std::string base_path_of(const std::string& source) {
  const auto url = http::parse_url(source);
  std::string path = url ? url->path : "/";
  while (path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

std::vector<gateway::Replica> CatalogueDirectory::replicas() const {
  auto out = services_.replicas();
  const std::size_t services = out.size();
  for (const store::ModelPtr& model : catalogue_.models()) {
    const auto own = [&](const gateway::Replica& replica) { return replica.model == model->name; };
    if (!model->has_upstream() || std::any_of(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(services), own)) continue;
    out.push_back({.id = fmt::format("upstream/{}", model->name),
                   .model = model->name,
                   .url = model->source,
                   .ready = true,
                   .base_path = base_path_of(model->source),
                   .external = true,
                   .key = model->upstream_key});
  }
  return out;
}

std::uint64_t CatalogueDirectory::version() const {
  const std::uint64_t services = services_.version();
  return services == 0 ? 0 : services * kCatalogueVersions + catalogue_.version() % kCatalogueVersions;
}

std::string CatalogueDirectory::resolve(const std::string& model, std::string_view request_id) const {
  return catalogue_.has_aliases() ? catalogue_.resolve(model, routing::hash_text(request_id)) : model;
}

std::vector<std::string> CatalogueDirectory::aliases() const {
  std::set<std::string> served;
  for (const gateway::Replica& replica : replicas()) served.insert(replica.model);
  for (const auto& [model, why] : services_.waiting()) served.insert(model);
  std::vector<std::string> out;
  for (const store::Alias& alias : catalogue_.aliases()) {
    if (std::ranges::any_of(alias.targets, [&](const store::AliasTarget& target) { return served.contains(target.model); }))
      out.push_back(alias.name);
  }
  return out;
}

}  // namespace capstan::apps
