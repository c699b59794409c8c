#include "apps/up/sessions.h"

#include <chrono>
#include <thread>

#include "agents/sessions/owner.h"
#include "apps/up/session_host.h"
#include "base/file.h"
#include "base/sha256.h"

namespace capstan::apps {
namespace {

// The key as a bearer, which is what the gateway's authenticator reads.
http::Request as_bearer(const http::Request& request) {
  const std::string* key = request.headers.find("x-api-key");
  if (key == nullptr) return {.headers = {{"authorization", request.headers.get("authorization")}}};
  return {.headers = {{"authorization", "Bearer " + *key}}};
}

}  // namespace

std::unique_ptr<agents::Front> make_front(const DataDirectory& data, Tenancy& tenancy, const TenancyOptions& options,
                                          agents::Places& places) {
  const auto bearer = std::make_shared<gateway::BearerAuthenticator>(  // shared by the copies of the function below
      tenancy.callers(),
      gateway::BearerOptions{.require_keys = options.require_keys, .control_token = options.control_token});
  const auto authenticate = [bearer, operator_bearer = "Bearer " + options.control_token](
                                const http::Request& request) -> std::expected<std::string, http::Response> {
    const http::Request shown = as_bearer(request);
    const auto caller = bearer->authenticate(shown);
    if (!caller) {
      return std::unexpected(http::Response::json(
          caller.error().status,
          Json::object({{"code", caller.error().status}, {"message", caller.error().message}})));
    }
    return agents::header_of({.organisation = (*caller)->organisation_number,
                              .project = (*caller)->project_number,
                              .key = (*caller)->key_number,
                              .operates = equal_constant_time(shown.headers.get("authorization"), operator_bearer)});
  };
  const auto record = [&database = tenancy.database()](const std::vector<store::ComputeRecord>& records) {
    return database.write([&](store::Session& session) { return store::insert_compute(session, records); });
  };
  return std::make_unique<agents::Front>(agents::FrontOptions{
      .address = data.path() / kSessionsAddress, .authenticate = authenticate, .record = record, .places = &places});
}

std::string describe_sandboxes(const DataDirectory& data, const std::string& url, int wait_ms) {
  for (int waited_ms = 0; waited_ms <= wait_ms; waited_ms += 20) {
    const auto text = read_file(data.path() / kSessionsAddress, 64 << 10);
    const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "not yet");
    if (!json) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      continue;
    }
    const std::string refusal = json->get_string("refusal").value_or("");
    if (refusal.empty()) return fmt::format("  sandboxes          {0}   (E2B clients: E2B_API_URL and E2B_SANDBOX_URL)\n", url);
    return fmt::format("  no sandboxes       {}\n", refusal);
  }
  return {};
}

}  // namespace capstan::apps
