// Goal: everything on the list of attacks (attacks.txt) ends as the list says, in every lane, and where
// bubblewrap sets the same bounds, there too: an independent implementation that must agree. Method: each
// case is a run of tests/sandbox/attack.c in a sandbox of its own; cases are added without code.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/file.h"
#include "base/text.h"
#include "sandbox/bubblewrap.h"
#include "sandbox/sandbox_testing.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

struct Case {
  int line = 0;
  std::string only;  // "process", "network" or empty
  std::string name;
  std::vector<std::string> arguments;
  std::vector<std::string> expected;
  CommandLimits limits{.wall_ms = 20'000};
  std::int64_t memory_bytes = BoxLimits{}.memory_bytes;
  std::string bwrap;  // "same", "filter" or "-"
};

// What a sandbox must not reach: a listening port, an abstract socket, a process.
struct Host {
  Fd tcp, abstract;
  std::string port, socket_name = "capstan-attack-" + random_hex(4);
  pid_t victim = -1;

  Host() {
    tcp.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(tcp.get(), reinterpret_cast<sockaddr*>(&address), size);
    ::listen(tcp.get(), 4);
    ::getsockname(tcp.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = std::to_string(ntohs(address.sin_port));
    abstract.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    socket_name.copy(name.sun_path + 1, sizeof name.sun_path - 2);
    ::bind(abstract.get(), reinterpret_cast<sockaddr*>(&name),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + socket_name.size()));
    ::listen(abstract.get(), 4);
    victim = ::fork();
    if (victim == 0) {
      ::signal(SIGWINCH, [](int) { ::_exit(1); });
      ::pause();
      ::_exit(0);
    }
  }
  ~Host() {
    ::kill(victim, SIGKILL);
    ::waitpid(victim, nullptr, 0);
  }
};

// "wall=300": true if it is one.
bool take_limit(Case& each, std::string_view word) {
  const std::size_t at = word.find('=');
  if (at == word.npos) return false;
  const auto value = parse_int(word.substr(at + 1));
  const std::string_view name = word.substr(0, at);
  if (!value) return false;
  if (name == "wall") return each.limits.wall_ms = *value, true;
  if (name == "cpu") return each.limits.cpu_ms = *value, true;
  if (name == "output") return each.limits.output_bytes = 1000, each.limits.output_bytes_max = *value, true;
  if (name == "memory") return each.memory_bytes = *value << 20, true;
  return false;
}

std::vector<Case> read_cases(const Host& host) {
  std::vector<Case> cases;
  std::ifstream file("tests/sandbox/attacks.txt");
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (trim(line).empty() || line[0] == '#') continue;
    const auto columns = split(line, '|');
    EXPECT_EQ(columns.size(), 4u) << "attacks.txt:" << number;
    if (columns.size() != 4) continue;
    Case each;
    each.line = number;
    each.name = trim(columns[0]);
    for (const std::string only : {"process", "network"}) {
      if (!each.name.starts_with(only + ": ")) continue;
      each.only = only;
      each.name = each.name.substr(only.size() + 2);
    }
    for (const auto word : split(trim(columns[1]), ' ')) {
      const std::string argument(word);
      if (argument.empty()) continue;
      if (each.arguments.empty() && take_limit(each, argument)) continue;
      each.arguments.push_back(argument == "HOSTPORT"     ? host.port
                               : argument == "HOSTSOCKET" ? host.socket_name
                               : argument == "HOSTPID"    ? std::to_string(host.victim)
                                                          : argument);
    }
    for (const auto word : split(columns[2], ',')) each.expected.emplace_back(trim(word));
    each.bwrap = std::string(trim(columns[3]));
    cases.push_back(std::move(each));
  }
  return cases;
}

void expect_verdict(const Case& each, const std::string& output, Ended ended, const std::string& where) {
  const std::string word(trim(output));
  const bool spoke = !word.empty() && ended != Ended::kOutput;
  const std::string verdict = spoke ? word : ended == Ended::kExited ? "nothing" : ended_name(ended);
  EXPECT_NE(std::find(each.expected.begin(), each.expected.end(), verdict), each.expected.end())
      << "attacks.txt:" << each.line << ": " << each.name << ": " << where << " said " << verdict;
}

class AttacksTest : public SandboxTest {
 protected:
  static void SetUpTestSuite() {
    ::setenv("CAPSTAN_ATTACK_SECRET", "secret", 1);
    SandboxTest::SetUpTestSuite();
  }

  void run_all(SandboxSpec spec) {
    spec.binds = {{CAPSTAN_ATTACK, "/mnt/attack", false}};
    spec.limits.tmpfs_bytes = 8 << 20;
    const std::string where = spec.network == Network::kNone ? "process" : "network";
    for (const Case& each : read_cases(host_)) {
      if (!each.only.empty() && each.only != where) continue;
      spec.limits.memory_bytes = each.memory_bytes;
      const auto result = launcher_->run(spec, command_of(each, spec.lane));
      ASSERT_TRUE(result) << each.name << ": " << result.error().message;
      expect_verdict(each, result->out, result->ended, where);
    }
    EXPECT_EQ(::kill(host_.victim, 0), 0);
  }

  static CommandSpec command_of(const Case& each, Lane lane) {
    CommandSpec command;
    command.limits = each.limits;
    command.argv = each.arguments;
    if (lane == Lane::kProcess) command.argv.insert(command.argv.begin(), "/mnt/attack");
    if (lane == Lane::kNodeWarm) {
      command.code =
          "const {status} = require('child_process').spawnSync('/mnt/attack', process.argv.slice(2), "
          "{stdio: 'inherit'}); process.exitCode = status ?? 137;";
    }
    if (lane == Lane::kPythonZygote)
      command.code = "import os, sys\nos.execv('/mnt/attack', ['attack'] + sys.argv[1:])\n";
    return command;
  }

  Host host_;
};

TEST_F(AttacksTest, EndAsTheListSaysInTheProcessLane) { run_all({}); }

TEST_F(AttacksTest, EndAsTheListSaysWithANetworkNamespace) { run_all({.network = Network::kNamespace}); }

TEST_F(AttacksTest, EndAsTheListSaysInAForkOfAWarmPython) {
  run_all({.lane = Lane::kPythonZygote, .tenant = "t"});
}

TEST_F(AttacksTest, EndAsTheListSaysInAWarmNode) {
  if (::access("/usr/bin/node", X_OK) != 0) GTEST_SKIP() << "/usr/bin/node is not installed";
  if (std::getenv("CAPSTAN_SLOW") == nullptr) GTEST_SKIP() << "a Node process per case: in make test-slow";
  run_all({.lane = Lane::kNodeWarm, .tenant = "t"});
}

std::string under_bwrap(const Case& each) {
  std::string line =
      "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink "
      "usr/lib64 /lib64 --proc /proc "
      "--dev /dev --tmpfs /tmp --dir /work --ro-bind " CAPSTAN_ATTACK
      " /mnt/attack --cap-drop ALL --uid 1000 --gid 1000 "
      "--new-session --die-with-parent /mnt/attack";
  for (const auto& argument : each.arguments) line += " '" + argument + "'";
  FILE* pipe = ::popen((line + " 2>&1 </dev/null").c_str(), "r");
  std::string text;
  char buffer[256];
  while (pipe != nullptr && ::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  if (pipe != nullptr) ::pclose(pipe);
  return text;
}

TEST_F(AttacksTest, EndAsTheListSaysUnderBubblewrapWhereItSetsTheSameBounds) {
  if (::access("/usr/bin/bwrap", X_OK) != 0) GTEST_SKIP() << "bubblewrap (/usr/bin/bwrap) is not installed";
  for (const Case& each : read_cases(host_)) {
    if (each.bwrap == "same") expect_verdict(each, under_bwrap(each), Ended::kExited, "bwrap");
  }
}

// The same list under the second backend, which is bubblewrap with our filter and cgroups: what it lacks is
// known by name, so every other verdict must agree.
TEST_F(AttacksTest, EndAsTheListSaysInTheBubblewrapBackendButForWhatItLacks) {
  if (::access("/usr/bin/bwrap", X_OK) != 0) GTEST_SKIP() << "bubblewrap (/usr/bin/bwrap) is not installed";
  const BubblewrapOptions backend{.instance = options_.instance,
                                  .without = {bubblewrap_lacks().begin(), bubblewrap_lacks().end()}};
  for (const Case& each : read_cases(host_)) {
    if (each.bwrap != "same" && each.bwrap != "filter") continue;
    if (!each.only.empty() && each.only != "network") continue;
    SandboxSpec spec{.network = Network::kNamespace, .binds = {{CAPSTAN_ATTACK, "/mnt/attack", false}}};
    spec.limits.tmpfs_bytes = 8 << 20;
    spec.limits.memory_bytes = each.memory_bytes;
    const auto result = run_in_bubblewrap(spec, command_of(each, Lane::kProcess), backend);
    ASSERT_TRUE(result) << each.name << ": " << result.error().message;
    expect_verdict(each, result->out, result->ended, "the bubblewrap backend");
  }
}

}  // namespace
}  // namespace capstan::sandbox
