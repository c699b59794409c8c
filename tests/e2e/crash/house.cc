#include "house.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "base/file.h"
#include "base/text.h"

namespace capstan::crash {
namespace {

namespace fs = std::filesystem;
constexpr int kReadyWaitMs = 60'000;

pid_t pid_in(const fs::path& file, std::string_view key) {
  const auto text = read_file(file);
  const auto json = text ? Json::parse(*text) : Result<Json>(Json());
  return json ? static_cast<pid_t>(json->get_int(key).value_or(0)) : 0;
}

bool is_zombie(const fs::path& process) {
  const auto stat = read_file(process / "stat");
  const std::size_t end = stat ? stat->rfind(')') : std::string::npos;
  return end == std::string::npos || stat->size() < end + 3 || (*stat)[end + 2] == 'Z';
}

bool has_file_below(const fs::path& process, const std::string& directory) {
  std::error_code error;
  for (fs::directory_iterator it(process / "fd", error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (fs::read_symlink(it->path(), ignored).string().starts_with(directory)) return true;
  }
  return false;
}

}  // namespace

House::House(fs::path bin, int port)
    : bin_(std::move(bin)),
      scratch_(fs::temp_directory_path() / ("capstan-crash-" + random_hex(6))),
      port_(port) {
  fs::create_directories(scratch_);
  ::chmod(scratch_.c_str(), 0755);
  std::ofstream(starts_file()).flush();
  ::chmod(starts_file().c_str(), 0666);  // ranks of another user append to it
}

House::~House() {
  for (const pid_t pid : processes()) ::kill(pid, SIGKILL);
  if (up_pid_ > 0) ::waitpid(up_pid_, nullptr, 0);
  std::error_code ignored;
  if (remove_) fs::remove_all(scratch_, ignored);
}

Result<pid_t> House::spawn(const std::vector<std::string>& arguments) const {
  std::string program = bin_ / "capstan";
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const std::string log = scratch_ / "up.log";
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);  // sockets of this process
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno("cannot start " + program, error);
  return pid;
}

Result<void> House::start_up() {
  CAPSTAN_TRY(up_pid_, spawn({"--data-dir", data(), "up", "--port", std::to_string(port_), "--bare"}));
  for (int waited_ms = 0; waited_ms < kReadyWaitMs; waited_ms += 20) {
    int status = 0;
    if (::waitpid(up_pid_, &status, WNOHANG) == up_pid_) {
      up_pid_ = -1;
      return fail(Code::kUnavailable, "capstan up ended with status {:#x}; see {}", status,
                  (scratch_ / "up.log").string());
    }
    if (token_.empty()) token_ = std::string(trim(read_file(data() / "control.token").value_or("")));
    const auto answer = request("GET", "/readyz");
    if (answer && answer->status == 200 && !token_.empty()) return {};
    ::usleep(20'000);
  }
  return fail(Code::kTimeout, "capstan up was not ready within {} ms", kReadyWaitMs);
}

void House::wait_up_ended() {
  if (up_pid_ > 0) ::waitpid(up_pid_, nullptr, 0);
  up_pid_ = -1;
}

int House::run(const std::vector<std::string>& arguments) const {
  const auto pid = spawn(arguments);
  int status = 0;
  if (!pid || ::waitpid(*pid, &status, 0) != *pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t House::controller_pid() const { return pid_in(data() / "controller.json", "pid"); }
pid_t House::worker_pid() const { return pid_in(data() / "worker/worker.json", "pid"); }

std::vector<House::RankPids> House::rank_pids() const {
  std::vector<RankPids> pids;
  std::error_code error;
  for (fs::directory_iterator it(data() / "worker/ranks", error), end; !error && it != end;
       it.increment(error)) {
    if (fs::exists(it->path() / "exit.json")) continue;
    const fs::path file = it->path() / "shim.json";
    const RankPids rank{pid_in(file, "pid"), pid_in(file, "child_pid")};
    if (rank.shim > 0 && rank.child > 0) pids.push_back(rank);
  }
  return pids;
}

std::size_t House::rank_records() const {
  std::error_code error;
  std::size_t count = 0;
  for (fs::directory_iterator it(data() / "worker/ranks", error), end; !error && it != end;
       it.increment(error))
    ++count;
  return count;
}

Result<http::Response> House::request(const std::string& method, const std::string& target,
                                      const std::string& body) {
  http::Request request;
  request.method = method;
  request.target = target;
  request.headers = {{"authorization", "Bearer " + token_}, {"content-type", "application/yaml"}};
  request.body = body;
  http::ClientOptions options;
  options.connect_timeout_ms = 2000;
  options.timeout_ms = 10'000;
  return client_.request(fmt::format("http://127.0.0.1:{}", port_), request, options);
}

// Never by pid alone: the number in a record may belong to a stranger by now.
bool House::owns(pid_t pid) const {
  const fs::path process = "/proc/" + std::to_string(pid);
  if (pid <= 1 || pid == ::getpid() || is_zombie(process)) return false;
  const std::string scratch = scratch_.string();
  const std::string command = read_file(process / "cmdline").value_or("");
  const std::string environment = read_file(process / "environ").value_or("");
  return command.find(scratch) != command.npos || environment.find(scratch) != environment.npos ||
         has_file_below(process, scratch);
}

std::vector<pid_t> House::processes() const {
  std::vector<pid_t> found;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const auto pid = parse_int(it->path().filename().string());
    if (pid && owns(static_cast<pid_t>(*pid))) found.push_back(static_cast<pid_t>(*pid));
  }
  return found;
}

}  // namespace capstan::crash
