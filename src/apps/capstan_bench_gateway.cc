// make bench-gateway: what does a request cost that goes through the gateway, with its key checked, its limits counted and its
// usage metered to SQL, against nginx as a plain proxy?
//
// An origin, the real gateway and nginx, each a process of its own on the loopback; this process makes the load. Gateway and
// nginx take turns, so that what else the machine does meets both. CPU time is the proxy's process's own (user and
// system, all threads); latency is measured at one connection, less that of the origin itself. Streams carry the time at which
// the origin wrote each token; `direct` are the same streams without a proxy: the delay that the load itself makes.
// Prints one JSON object.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "apps/bench_gateway/gateway_process.h"
#include "apps/bench_gateway/load.h"
#include "apps/bench_gateway/origin.h"
#include "apps/bench_gateway/processes.h"
#include "apps/bench_gateway/streams.h"
#include "base/file.h"
#include "base/json.h"

namespace capstan::bench_gateway {
namespace {

struct Options {
  int requests = 20'000;  // a round
  int rounds = 3;
  int streams = 1'000;
  int tokens = 250;
  std::string only = {};  // requests or streams; empty: both
  bool http1 = false;     // to the origin, as services get it unless they say http2
  bool requested() const { return only != "streams"; }
  bool streamed() const { return only != "requests"; }
};

struct Cost {
  double cpu_us = 0;
  double seconds = 0;
  int requests = 0;
  int good = 0;
  double per_request() const { return requests == 0 ? 0 : cpu_us / requests; }
};

void add_round(const Child& proxy, const std::string& key, int requests, Cost& cost) {
  const double before_us = proxy.cpu_us();
  const RequestResult result = run_requests(proxy.url(), key, {.connections = 64, .requests = requests});
  cost.cpu_us += proxy.cpu_us() - before_us;
  cost.seconds += result.seconds;
  cost.requests += requests;
  cost.good += result.good;
}

double p50_alone_us(const Child& server, const std::string& key, int requests) {
  return percentile(run_requests(server.url(), key, {.connections = 1, .requests = requests}).latencies_us, 0.5);
}

double rounded(double value) { return static_cast<double>(static_cast<std::int64_t>(value * 100 + 0.5)) / 100; }

Result<Json> streams_of(const Child& server, const std::string& key, const Options& options) {
  const double before_us = server.cpu_us();
  CAPSTAN_TRY(const StreamResult result,
              run_streams(server.port(), key, {.streams = options.streams, .tokens = options.tokens}));
  const double cpu_us = server.cpu_us() - before_us;
  return Json::object(
      {{"wanted", static_cast<std::int64_t>(options.streams) * options.tokens},
       {"delivered", result.delivered},
       {"complete_streams", result.complete},
       {"sse_p50_ms", rounded(percentile(result.delays_us, 0.5) / 1000)},
       {"sse_p99_ms", rounded(percentile(result.delays_us, 0.99) / 1000)},
       {"cpu_us_per_token_event", rounded(cpu_us / static_cast<double>(std::max<std::int64_t>(result.delivered, 1)))}});
}

Json costs(const Cost& cost) {
  return Json::object({{"cpu_us_per_request", rounded(cost.per_request())},
                       {"requests_per_s", rounded(cost.requests / cost.seconds)},
                       {"requests", cost.requests},
                       {"good", cost.good}});
}

struct Servers {
  const Child& origin;
  const Child& gateway;
  const Child* nginx;  // null where there is none
};

void compare_requests(const Servers& servers, const std::string& key, const Options& options, Json& out) {
  run_requests(servers.gateway.url(), key, {.connections = 64, .requests = options.requests / 10});  // warm
  Cost gateway, nginx;
  for (int round = 0; round < options.rounds; ++round) {
    add_round(servers.gateway, key, options.requests, gateway);
    if (servers.nginx != nullptr) add_round(*servers.nginx, key, options.requests, nginx);
  }
  const int alone = options.requests / 10;
  const double origin_us = p50_alone_us(servers.origin, key, alone);
  out["gateway"] = costs(gateway);
  out["gateway"]["added_p50_us"] = rounded(p50_alone_us(servers.gateway, key, alone) - origin_us);
  if (servers.nginx == nullptr) return;
  out["nginx"] = costs(nginx);
  out["nginx"]["added_p50_us"] = rounded(p50_alone_us(*servers.nginx, key, alone) - origin_us);
  out["ratio_to_nginx"] = rounded(gateway.per_request() / std::max(nginx.per_request(), 0.01));
}

Result<Json> measure(const Options& options, const std::string& self, const std::string& folder) {
  CAPSTAN_TRY(const Child origin, Child::start({self, "--role", "origin"}, 0));
  CAPSTAN_TRY(const Child gateway,
              Child::start({self, "--role", "gateway", "--origin", std::to_string(origin.port()), "--folder", folder,
                            options.http1 ? "--http1" : "--http1=false"},
                           0));
  CAPSTAN_TRY(const std::string key, read_file(folder + "/key"));
  auto nginx = start_nginx(folder, origin.port());
  if (nginx && !*nginx) return std::unexpected(nginx->error());
  const Child* const peer = nginx ? &**nginx : nullptr;
  Json out = Json::object({{"benchmark", "gateway"}, {"gateway", Json::object({})}});
  if (peer == nullptr) {
    out["nginx"] = "not installed: no ratio";
  } else {
    out["nginx"] = Json::object({});
  }
  if (options.requested()) compare_requests({origin, gateway, peer}, key, options, out);
  if (options.streamed()) {
    CAPSTAN_TRY(out["gateway"]["streams"], streams_of(gateway, key, options));
    CAPSTAN_TRY(out["direct"], streams_of(origin, key, options));
    if (peer != nullptr) {
      CAPSTAN_TRY(out["nginx"]["streams"], streams_of(*peer, key, options));
    }
  }
  return out;
}

int run(int argc, char** argv) {
  Options options;
  std::string role, folder_of_gateway;
  int origin_port = 0;
  CLI::App app("what a request through the gateway costs, against nginx; one JSON object");
  app.add_option("--requests", options.requests, "requests a round, at 64 connections")->check(CLI::Range(10, 10'000'000));
  app.add_option("--rounds", options.rounds, "turns of gateway and nginx")->check(CLI::Range(1, 100));
  app.add_option("--streams", options.streams, "streams at once, 50 tokens a second each")->check(CLI::Range(1, 10'000));
  app.add_option("--tokens", options.tokens, "tokens a stream")->check(CLI::Range(1, 100'000));
  app.add_option("--only", options.only, "one of the two")->check(CLI::IsMember({"requests", "streams"}));
  app.add_flag("--http1", options.http1, "the gateway speaks HTTP/1.1 to its replica, as services get it unless they say http2");
  app.add_option("--role", role, "internal: origin or gateway")->group("");
  app.add_option("--origin", origin_port, "internal: its port")->group("");
  app.add_option("--folder", folder_of_gateway, "internal: where the gateway's tables lie")->group("");
  CLI11_PARSE(app, argc, argv);
  if (role == "origin") return run_origin();
  if (role == "gateway") return run_gateway(origin_port, !options.http1, folder_of_gateway);
  char folder[] = "/tmp/capstan-bench-gateway-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return 1;
  const auto result = measure(options, std::filesystem::read_symlink("/proc/self/exe").string(), folder);
  std::filesystem::remove_all(folder);
  if (!result) return std::fprintf(stderr, "bench-gateway: %s\n", result.error().message.c_str()), 1;
  std::printf("%s\n", result->dump().c_str());
  return 0;
}

}  // namespace
}  // namespace capstan::bench_gateway

int main(int argc, char** argv) { return capstan::bench_gateway::run(argc, argv); }
