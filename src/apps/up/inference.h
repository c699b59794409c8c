// Everything behind the inference routes of `capstan up`: the gateway, OpenAI's and Bedrock's APIs, and the
// tables they keep.
//
//   CAPSTAN_TRY(auto inference, Inference::open(data, backend, registry, options));
//   inference->mount(router);  …  inference->start();  …  inference->cancel();
//
// Threads: one owner; requests come on the server's.  Failure: of the tables (data directory's store.sqlite)
// or the files.
#pragma once

#include <memory>

#include "apps/up/catalogue_directory.h"
#include "apps/up/data_directory.h"
#include "apps/up/session_code.h"
#include "apps/up/session_containers.h"
#include "apps/up/tenancy.h"
#include "gateway/gateway.h"
#include "gateway/openai/openai.h"

namespace capstan::apps {

class Inference {
 public:
  // `replicas` outlives it, and the server that it is mounted on does not.
  static Result<std::unique_ptr<Inference>> open(const DataDirectory& data,
                                                 const gateway::ReplicaDirectory& replicas,
                                                 std::shared_ptr<prometheus::Registry> registry,
                                                 const TenancyOptions& options);
  const gateway::ServiceWatch& watch() const { return gateway_.watch(); }
  Tenancy& tenancy() { return *tenancy_; }
  api::Accounts accounts() { return tenancy_->accounts(); }
  store::Database& database() { return tenancy_->database(); }
  void mount(http::Router& router) {
    gateway_.mount(router);
    code_.mount(router);
  }
  void start() { openai_->start(); }  // batches go on
  void cancel() { gateway_.cancel(); }

 private:
  Inference(std::unique_ptr<Tenancy> tenancy, const DataDirectory& data, const gateway::ReplicaDirectory& replicas,
            std::shared_ptr<prometheus::Registry> registry);

  std::unique_ptr<Tenancy> tenancy_;
  CatalogueDirectory directory_;
  gateway::Gateway gateway_;
  SessionCode code_;
  SessionContainers containers_;
  std::unique_ptr<gateway::openai::OpenAiApi> openai_;
};

}  // namespace capstan::apps
