// The controller's process: journal, driver, API and gateway on one port, until it is told to leave.
#include <prometheus/registry.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#include "api/api.h"
#include "apps/up/autoscale_loop.h"
#include "apps/up/driver_backend.h"
#include "apps/up/inference.h"
#include "apps/up/placed_hosts.h"
#include "apps/up/sessions.h"
#include "apps/up/task_metering.h"
#include "apps/up/up.h"
#include "base/build_id.h"
#include "base/file.h"
#include "base/log.h"
#include "controller/driver.h"
#include "http/server.h"
#include "journal/journal.h"

namespace capstan::apps {
namespace {

constexpr int kServerThreads = 96;      // followers and log streams each hold one
constexpr int kDrainAnswersMs = 2'000;  // for answers under way when leaving
constexpr int kSandboxesWaitMs = 3'000;  // for the session host, before the welcome is printed without it
constexpr int kWorkerWaitMs = 15'000;   // for the worker to join, before the welcome is printed without it

constexpr std::string_view kDefaultService = R"(kind: service
name: abacus
engine: {model: abacus}
resources: {cpus: 0.25}
labels: {capstan: default}
)";

enum Leave : int { kStay, kLeaveRanks, kStopRanks };
std::atomic<int> leave_requested{kStay};
static_assert(std::atomic<int>::is_always_lock_free);  // written by a signal handler
void on_signal(int) { leave_requested = leave_requested == kStay ? kLeaveRanks : leave_requested.load(); }

// First start: the default model is served like any other service, and can be changed or cancelled like one.
Result<void> serve_default_model(controller::Driver& driver) {
  bool fresh = false;
  CAPSTAN_CHECK(driver.read([&](const controller::State& state) { fresh = state.next_id == 1; }));
  if (!fresh) return {};
  auto specs = workload::parse_specs(kDefaultService, {.source = "default model"});
  if (!specs) return fail(Code::kInvalid, "{}", specs.error().front().text());
  if (auto applied = driver.submit(controller::Apply{std::move(*specs), false}).get(); !applied)
    return std::unexpected(applied.error());
  return {};
}

Result<void> write_address(const DataDirectory& data, const UpOptions& options, int port,
                           std::int64_t epoch) {
  const Json address = Json::object({{"pid", ::getpid()},
                                     {"host", options.host},
                                     {"port", port},
                                     {"tls", !options.tls_key.empty()},
                                     {"epoch", epoch},
                                     {"build", build_id()}});
  return write_file_atomic(data.path() / "controller.json", address.dump() + "\n", 0600);
}

// What is not enforced on this host, once its worker has said so.
std::string missing_capabilities(controller::Driver& driver) {
  std::string text;
  for (int waited_ms = 0; waited_ms < kWorkerWaitMs && leave_requested == kStay; waited_ms += 50) {
    bool joined = false;
    (void)driver.read([&](const controller::State& state) {
      const auto healthy = [&](const auto& entry) {
        return state.inventory.host(entry.first).health == fleet::Health::kHealthy;
      };
      joined = !state.contacts.empty() && healthy(*state.contacts.begin());
      text.clear();
      for (const auto& [host, contact] : state.contacts) {
        for (const auto& capability : contact.capabilities) {
          if (!capability.ok)
            text += fmt::format("  not enforced on {}: {} ({})\n", state.name(host), capability.name, capability.why);
        }
      }
    });
    if (joined) return text;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return "  the worker of this host has not joined yet; its log is log/worker.log in the data directory\n";
}

void welcome(const std::string& url, const DataDirectory& data, const std::string& sandboxes, const std::string& notes) {
  fmt::print(
      "Capstan is up.\n"
      "  API and inference  {0}   (OpenAI clients: {0}/v1)\n"
      "  metrics            {0}/metrics\n"
      "{2}"
      "  data               {1}\n"
      "{3}\n"
      "Try, in a second terminal:\n"
      "  ./capstan chat 'What is 48217 + 9386?'\n"
      "  ./capstan apply -f examples/hello.yaml && ./capstan logs hello -f\n"
      "  ./capstan apply -f examples/train-abacus.yaml && ./capstan logs train-abacus -f\n\n"
      "Ctrl-C stops Capstan and leaves running what runs; `./capstan down` stops all.\n",
      url, data.path().string(), sandboxes, notes);
  std::fflush(stdout);
}

// The farewell of Ctrl-C: what goes on, and how to stop it.
void say_what_stays(controller::Driver& driver) {
  std::string names;
  (void)driver.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) {
      if (!controller::has_ended(workload.state)) {
        names += fmt::format("  {} {} ({})\n", workload::kind_name(workload.spec.kind), workload.spec.name,
                             controller::state_name(workload.state));
      }
    }
  });
  if (names.empty()) {
    fmt::print("\nCapstan stopped. Nothing else runs.\n");
  } else {
    fmt::print(
        "\nCapstan stopped. These go on without it:\n{}`capstan up` takes them over again; "
        "`capstan down` stops them.\n",
        names);
  }
}

// Stops every rank and waits for the last; a second Ctrl-C gives up waiting.
void drain(controller::Driver& driver) {
  fmt::print("stopping everything, gracefully\n");
  std::fflush(stdout);
  const auto done = std::make_shared<std::atomic<bool>>(false);  // shared with the callback
  if (const auto started = driver.drain([done] { *done = true; }); !started) return;
  leave_requested = kStay;
  while (!*done && leave_requested == kStay) std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

int fail_with(const Error& error) {
  fmt::print(stderr, "capstan: {}\n", error.message);
  return error.code == Code::kConflict ? 6 : 1;
}

}  // namespace

int run_controller(const ControllerOptions& options) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  log_configure("controller", LogLevel::kInfo);
  if (const auto logging = log_to_file((options.data.path() / "log/controller.log").c_str()); !logging)
    return fail_with(logging.error());

  auto journal = journal::open_sqlite_journal((options.data.path() / "journal.sqlite").string());
  if (!journal) return fail_with(std::move(journal.error()).with_context("journal"));
  auto driver = controller::Driver::start(std::move(*journal), {.build = build_id()});
  if (!driver) return fail_with(driver.error());

  DriverBackend backend(**driver,
                        [](bool stop_ranks) { leave_requested = stop_ranks ? kStopRanks : kLeaveRanks; });
  const auto registry = std::make_shared<prometheus::Registry>();  // shared by API and gateway
  http::Router router;
  router.add_guard("/", [host = options.up.host](const http::Request& request) {
    return http::refuse_foreign(request, {.hosts = {host}});
  });
  const TenancyOptions tenancy{.require_keys = options.up.require_keys || !http::is_loopback(options.up.host),
                               .control_token = options.data.control_token()};
  auto inference = Inference::open(options.data, backend, registry, tenancy);
  if (!inference) return fail_with(std::move(inference.error()).with_context("store"));
  api::Api api(backend, {options.data.control_token(), options.data.worker_token(), (*inference)->accounts()}, registry);
  api.mount(router);
  (*inference)->mount(router);
  const SandboxOwners owners((*inference)->tenancy().tenants());
  backend.on_start_sandbox([&](const controller::State& state, protocol::StartRank& start) { owners.put(state, start); });
  PlacedHosts placed(backend, owners, options.data.worker_token());
  const auto sandboxes = make_front(options.data, (*inference)->tenancy(), tenancy, placed);
  sandboxes->mount(router);
  auto server = http::Server::start({.host = options.up.host,
                                     .port = options.up.port,
                                     .threads = kServerThreads,
                                     .tls_certificate = options.up.tls_certificate,
                                     .tls_key = options.up.tls_key,
                                     .body_directory = options.data.path()},
                                    router);
  if (!server) return fail_with(server.error());
  (*inference)->start();
  sandboxes->start();
  auto metering = TaskMetering::start(**driver, (*inference)->database());
  if (!metering) return fail_with(std::move(metering.error()).with_context("metering of tasks"));
  auto autoscale = std::make_unique<AutoscaleLoop>(backend, (*inference)->watch());
  const auto epoch = (*driver)->status().epoch;
  if (const auto written = write_address(options.data, options.up, (*server)->port(), epoch); !written)
    return fail_with(written.error());
  backend.arrive();
  if (!options.up.bare) {
    if (const auto served = serve_default_model(**driver); !served) return fail_with(served.error());
  }
  const std::string scheme = options.up.tls_key.empty() ? "http" : "https";
  const std::string url = fmt::format("{}://{}:{}", scheme, options.up.host, (*server)->port());
  welcome(url, options.data, describe_sandboxes(options.data, url, kSandboxesWaitMs), missing_capabilities(**driver));

  while (leave_requested == kStay) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const bool down = leave_requested == kStopRanks || options.up.ephemeral;
  if (down) drain(**driver);
  metering->reset();
  autoscale.reset();
  sandboxes->stop();
  backend.leave();
  api.cancel();
  (*inference)->cancel();
  (*server)->stop(kDrainAnswersMs);
  std::error_code ignored;
  std::filesystem::remove(options.data.path() / "controller.json", ignored);
  if (!down) say_what_stays(**driver);
  return down ? kExitDown : 0;
}

}  // namespace capstan::apps
