// make bench-gateway: what does a request cost that goes through the gateway, against nginx as a plain proxy?
//
// An origin, the real gateway and nginx, each a process of its own on the loopback; this process makes the load. Gateway and
// nginx take turns, so that what else the machine does meets both. CPU time is the proxy's process's own (user and
// system); latency is measured at one connection, less that of the origin itself; streams carry the time at which the
// origin wrote each token. Prints one JSON object.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "apps/bench_gateway/load.h"
#include "apps/bench_gateway/origin.h"
#include "apps/bench_gateway/processes.h"
#include "base/json.h"

namespace capstan::bench_gateway {
namespace {

struct Options {
  int requests = 20'000;  // a round
  int rounds = 3;
  int streams = 1'000;
  int tokens = 250;
};

struct Cost {
  double cpu_us = 0;
  double seconds = 0;
  int requests = 0;
  int good = 0;
  double per_request() const { return requests == 0 ? 0 : cpu_us / requests; }
};

void add_round(const Child& proxy, int requests, Cost& cost) {
  const double before_us = proxy.cpu_us();
  const RequestResult result = run_requests(proxy.url(), {.connections = 64, .requests = requests});
  cost.cpu_us += proxy.cpu_us() - before_us;
  cost.seconds += result.seconds;
  cost.requests += requests;
  cost.good += result.good;
}

double p50_alone_us(const Child& server, int requests) {
  return percentile(run_requests(server.url(), {.connections = 1, .requests = requests}).latencies_us, 0.5);
}

double rounded(double value) { return static_cast<double>(static_cast<std::int64_t>(value * 100 + 0.5)) / 100; }

Json streams_of(const Child& proxy, const Options& options) {
  const double before_us = proxy.cpu_us();
  const StreamResult result = run_streams(proxy.url(), {.streams = options.streams, .tokens = options.tokens});
  const double cpu_us = proxy.cpu_us() - before_us;
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

Result<Json> measure(const Options& options, const std::string& self, const std::string& folder) {
  CAPSTAN_TRY(const Child origin, Child::start({self, "--role", "origin"}, 0));
  CAPSTAN_TRY(const Child gateway,
              Child::start({self, "--role", "gateway", "--origin", std::to_string(origin.port())}, 0));
  auto nginx = start_nginx(folder, origin.port());
  if (nginx && !*nginx) return std::unexpected(nginx->error());
  run_requests(gateway.url(), {.connections = 64, .requests = options.requests / 10});  // warm
  Cost gateway_cost, nginx_cost;
  for (int round = 0; round < options.rounds; ++round) {
    add_round(gateway, options.requests, gateway_cost);
    if (nginx) add_round(**nginx, options.requests, nginx_cost);
  }
  const int alone = options.requests / 10;
  const double origin_us = p50_alone_us(origin, alone);
  Json out = Json::object({{"benchmark", "gateway"}, {"gateway", costs(gateway_cost)}});
  out["gateway"]["added_p50_us"] = rounded(p50_alone_us(gateway, alone) - origin_us);
  out["gateway"]["streams"] = streams_of(gateway, options);
  if (!nginx) {
    out["nginx"] = "not installed: no ratio";
    return out;
  }
  out["nginx"] = costs(nginx_cost);
  out["nginx"]["added_p50_us"] = rounded(p50_alone_us(**nginx, alone) - origin_us);
  out["nginx"]["streams"] = streams_of(**nginx, options);
  out["ratio_to_nginx"] = rounded(gateway_cost.per_request() / std::max(nginx_cost.per_request(), 0.01));
  return out;
}

int run(int argc, char** argv) {
  Options options;
  std::string role;
  int origin_port = 0;
  CLI::App app("what a request through the gateway costs, against nginx; one JSON object");
  app.add_option("--requests", options.requests, "requests a round, at 64 connections")->check(CLI::Range(10, 10'000'000));
  app.add_option("--rounds", options.rounds, "turns of gateway and nginx")->check(CLI::Range(1, 100));
  app.add_option("--streams", options.streams, "streams at once, 50 tokens a second each")->check(CLI::Range(1, 10'000));
  app.add_option("--tokens", options.tokens, "tokens a stream")->check(CLI::Range(1, 100'000));
  app.add_option("--role", role, "internal: origin or gateway")->group("");
  app.add_option("--origin", origin_port, "internal: its port")->group("");
  CLI11_PARSE(app, argc, argv);
  if (role == "origin") return run_origin();
  if (role == "gateway") return run_gateway(origin_port);
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
