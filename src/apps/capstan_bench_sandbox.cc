// Question: how fast does a sandbox with all limits start and end, beside bubblewrap, and what does it cost?
//
// Rounds alternate: a slice of starts one after the other (each kind, ours and bubblewrap's, and the floors:
// the same without any sandbox), then a slice with several at once, until the time is up. Then idle sandboxes
// are weighed, and fifty run beside four bombs. CPU counts this program, the launcher, what ran inside, and
// all kernel threads. Prints one JSON object. Needs root and a quiet machine; bubblewrap's figures are absent
// without /usr/bin/bwrap.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "apps/bench_sandbox/floor.h"
#include "apps/bench_sandbox/meter.h"
#include "apps/bench_sandbox/neighbours.h"
#include "base/file.h"
#include "base/json.h"
#include "sandbox/launcher.h"

extern char** environ;

namespace {

using namespace capstan;
using namespace capstan::sandbox;
using bench_sandbox::now_ms;

constexpr int kStartsPerSlice = 20;
constexpr int kThroughputPerSlice = 400;
constexpr int kAtOnce = 4;
constexpr const char* kParts[] = {"process", "network", "python", "bwrap", "floors", "throughput", "idle"};

struct Bench {
  std::unique_ptr<Launcher> launcher;
  std::filesystem::path root;  // a template: nothing but the probe
  int null = -1;
  std::set<std::string> parts;  // of kParts
  std::string instance = "bench-" + random_hex(4);
  bench_sandbox::BareFork bare_fork;
  std::map<std::string, std::vector<double>> latency_ms;
  double throughput_starts = 0, throughput_ms = 0, throughput_cpu_ms = 0;
  double python_starts = 0, python_cpu_ms = 0;
};

SandboxSpec spec_of(const Bench& bench, Network network) {
  return {.network = network, .template_root = bench.root};
}

CommandSpec probe(const Bench& bench) {
  CommandSpec command{.argv = {"/probe"}, .cwd = "/"};
  command.stdin_fd = command.stdout_fd = command.stderr_fd = bench.null;
  return command;
}

void must(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "capstan-bench-sandbox: %s\n", what.c_str());
  std::exit(1);
}

void one_start(Bench& bench, const SandboxSpec& spec, const CommandSpec& command) {
  const auto result = bench.launcher->run(spec, command);
  must(result.has_value(), result ? "" : result.error().message);
  must(result->ended == Ended::kExited && result->exit_code == 0,
       std::string("a probe ended as ") + ended_name(result->ended));
}

void one_program(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  int status = 0;
  must(::posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ) == 0 &&
           ::waitpid(pid, &status, 0) == pid && status == 0,
       words[0] + " failed");
}

template <class Run>
void slice(Bench& bench, const char* part, const std::string& name, Run run) {
  if (!bench.parts.contains(part)) return;
  for (int i = 0; i < kStartsPerSlice; ++i) {
    const double begun = now_ms();
    run();
    bench.latency_ms[name].push_back(now_ms() - begun);
  }
}

SandboxSpec python_spec() { return {.lane = Lane::kPythonZygote, .tenant = "bench"}; }

CommandSpec python(const Bench& bench, const char* code) {
  CommandSpec command = probe(bench);
  command.argv.clear();
  command.cwd = "/work";
  command.code = code;
  return command;
}

void run_bwrap(std::vector<std::string> files, const std::vector<std::string>& program) {
  std::vector<std::string> words = {"/usr/bin/bwrap", "--unshare-all"};
  words.insert(words.end(), files.begin(), files.end());
  for (const char* word :
       {"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--new-session", "--die-with-parent"})
    words.emplace_back(word);
  words.insert(words.end(), program.begin(), program.end());
  one_program(words);
}

void python_starts(Bench& bench) {
  if (!bench.parts.contains("python")) return;
  const double cpu = bench_sandbox::cpu_ms(bench.launcher->process_id());
  slice(bench, "python", "python_zygote", [&] { one_start(bench, python_spec(), python(bench, "pass")); });
  ::usleep(50'000);  // its pool refills
  bench.python_cpu_ms += bench_sandbox::cpu_ms(bench.launcher->process_id()) - cpu;
  bench.python_starts += kStartsPerSlice;
}

void one_by_one(Bench& bench) {
  const std::string root = bench.root.string();
  slice(bench, "process", "process", [&] { one_start(bench, spec_of(bench, Network::kNone), probe(bench)); });
  slice(bench, "bwrap", "bwrap", [&] { run_bwrap({"--ro-bind", root, "/"}, {"/probe"}); });
  const std::string program = root + "/probe";
  slice(bench, "floors", "floor_spawn", [&] { must(bench_sandbox::run_bare(program), program); });
  slice(bench, "floors", "floor_namespaces",
        [&] { must(bench_sandbox::run_in_namespaces(program), program); });
  python_starts(bench);
  slice(bench, "bwrap", "bwrap_python", [&] {
    run_bwrap(
        {"--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"},
        {"/usr/bin/python3", "-I", "-S", "-c", "pass"});
  });
  slice(bench, "floors", "floor_python_fork", [&] { must(bench.bare_fork.run(), "/usr/bin/python3"); });
  slice(bench, "network", "process_network",
        [&] { one_start(bench, spec_of(bench, Network::kNamespace), probe(bench)); });
}

void at_once(Bench& bench) {
  if (!bench.parts.contains("throughput")) return;
  const double begun = now_ms(), cpu = bench_sandbox::cpu_ms(bench.launcher->process_id());
  std::vector<std::jthread> threads;
  for (int i = 0; i < kAtOnce; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kThroughputPerSlice / kAtOnce; ++n)
        one_start(bench, spec_of(bench, Network::kNone), probe(bench));
    });
  }
  threads.clear();
  bench.throughput_ms += now_ms() - begun;
  ::usleep(200'000);  // pools refill, cgroups and namespaces are taken apart: it counts
  bench.throughput_cpu_ms += bench_sandbox::cpu_ms(bench.launcher->process_id()) - cpu;
  bench.throughput_starts += kThroughputPerSlice;
}

// The difference that `count` idle sandboxes make.
double idle_kib(const Bench& bench, int count, const SandboxSpec& spec, const CommandSpec& command) {
  std::vector<std::unique_ptr<sandbox::Command>> idle;
  ::usleep(500'000);
  const double before = bench_sandbox::machine_memory_kib();
  for (int i = 0; i < count; ++i) {
    auto started = bench.launcher->start(spec, command);
    must(started.has_value(), started ? "" : started.error().message);
    idle.push_back(std::move(*started));
  }
  ::usleep(500'000);
  const double each = (bench_sandbox::machine_memory_kib() - before) / count;
  for (auto& one : idle) one->kill();
  for (auto& one : idle) (void)one->wait();
  return each;
}

double rounded(double value) {
  return static_cast<double>(static_cast<std::int64_t>(value * 1000 + 0.5)) / 1000;
}

Json report(const Bench& bench, double seconds) {
  Json out = Json::object(
      {{"seconds", rounded(seconds)}, {"cpus", static_cast<int>(std::thread::hardware_concurrency())}});
  for (const auto& [name, values] : bench.latency_ms) {
    out[name + "_p50_ms"] = rounded(bench_sandbox::quantile(values, 0.5));
    out[name + "_p99_ms"] = rounded(bench_sandbox::quantile(values, 0.99));
    out[name + "_starts"] = static_cast<std::int64_t>(values.size());
  }
  if (bench.latency_ms.contains("process") && bench.latency_ms.contains("bwrap")) {
    out["ratio_to_bwrap"] = rounded(bench_sandbox::quantile(bench.latency_ms.at("process"), 0.5) /
                                    bench_sandbox::quantile(bench.latency_ms.at("bwrap"), 0.5));
  }
  if (bench.throughput_starts > 0) {
    out["starts_per_s"] = rounded(bench.throughput_starts * 1000 / bench.throughput_ms);
    out["cpu_ms_per_start"] = rounded(bench.throughput_cpu_ms / bench.throughput_starts);
  }
  if (bench.python_starts > 0)
    out["python_cpu_ms_per_start"] = rounded(bench.python_cpu_ms / bench.python_starts);
  return out;
}

void weigh_idle(const Bench& bench, int count, Json& out) {
  CommandSpec waiting = probe(bench);
  waiting.argv.push_back("wait");
  out["idle_process_kib"] = rounded(idle_kib(bench, count, spec_of(bench, Network::kNone), waiting));
  const CommandSpec sleeping = python(bench, "import time\ntime.sleep(1000)");
  out["idle_python_kib"] = rounded(idle_kib(bench, count / 2, python_spec(), sleeping));
}

void finish(Bench& bench) {
  bench.launcher.reset();
  std::filesystem::remove_all(bench.root);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"How fast sandboxes start, beside bubblewrap", "capstan-bench-sandbox"};
  double seconds = 60;
  int idle = 200;
  app.add_option("--seconds", seconds, "how long")->capture_default_str();
  app.add_option("--idle", idle, "sandboxes to measure memory with")->capture_default_str();
  int neighbours = 3;
  app.add_option("--neighbours", neighbours, "rounds of fifty sandboxes beside four bombs")
      ->capture_default_str();
  std::vector<std::string> only(std::begin(kParts), std::end(kParts));
  app.add_option("--only", only, "what to measure; python,idle is short")
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(kParts), std::end(kParts))));
  CLI11_PARSE(app, argc, argv);

  Bench bench;
  bench.null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  bench.root = std::filesystem::temp_directory_path() / ("capstan-bench-" + random_hex(4));
  for (const char* directory : {"proc", "dev", "run", "tmp", "work", "mnt"})
    std::filesystem::create_directories(bench.root / directory);
  const auto self = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  std::filesystem::copy_file(self / "capstan-sandbox-probe", bench.root / "probe");
  bench.parts.insert(only.begin(), only.end());
  if (::access("/usr/bin/bwrap", X_OK) != 0) bench.parts.erase("bwrap");
  auto started = Launcher::start({.instance = bench.instance, .ready = 8, .ready_with_network = 4});
  must(started.has_value(), started ? "" : started.error().message);
  bench.launcher = std::move(*started);

  one_by_one(bench);  // warm
  bench.latency_ms.clear();
  bench.python_cpu_ms = bench.python_starts = 0;
  const double begun = now_ms();
  do {
    one_by_one(bench);
    at_once(bench);
  } while (now_ms() - begun < seconds * 1000);
  const double took = (now_ms() - begun) / 1000;
  Json out = report(bench, took);
  if (bench.parts.contains("idle")) weigh_idle(bench, idle, out);
  if (neighbours > 0) {
    const auto beside = bench_sandbox::measure_neighbours(*bench.launcher, neighbours);
    if (beside)
      out["neighbours"] = *beside;
    else
      out["neighbours_failed"] = beside.error().message;
  }
  finish(bench);
  std::printf("%s\n", out.dump().c_str());
  return 0;
}
