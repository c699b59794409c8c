#include "apps/bench_gateway/processes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace capstan::bench_gateway {
namespace {

constexpr int kStartMsMax = 5'000;

double cpu_ticks(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  std::istringstream rest(text.substr(std::min(text.size(), text.rfind(')') + 2)));
  std::string skipped;
  for (int i = 0; i < 11; ++i) rest >> skipped;
  double user = 0, system = 0;
  rest >> user >> system;
  return user + system;
}

bool answers(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool good = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return good;
}

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t bytes = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes);
  ::close(fd);
  return ntohs(address.sin_port);
}

}  // namespace

Result<Child> Child::start(const std::vector<std::string>& argv, int port) {
  int input[2], output[2];
  if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(output, O_CLOEXEC) != 0) return fail_errno("no pipe", errno);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(input[0], STDIN_FILENO);
    ::dup2(output[1], STDOUT_FILENO);
    std::vector<char*> arguments;
    for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(input[0]);
  ::close(output[1]);
  Child child(pid, input[1], port);
  if (port == 0) {
    FILE* lines = ::fdopen(output[0], "r");
    if (std::fscanf(lines, "%d", &child.port_) != 1) child.port_ = 0;
    std::fclose(lines);
  } else {
    ::close(output[0]);
  }
  for (int waited_ms = 0; waited_ms < kStartMsMax; waited_ms += 10) {
    if (child.port_ != 0 && answers(child.port_)) return child;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return fail(Code::kUnavailable, "{} does not answer", argv[0]);
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), input_(std::exchange(other.input_, -1)), port_(other.port_) {}

Child::~Child() {
  if (pid_ < 0) return;
  ::close(input_);
  ::kill(pid_, SIGTERM);
  ::waitpid(pid_, nullptr, 0);
}

std::string Child::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

double Child::cpu_us() const {
  double ticks = cpu_ticks(pid_);
  std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", pid_));
  for (pid_t child; children >> child;) ticks += cpu_ticks(child);
  return ticks * 1e6 / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::optional<Result<Child>> start_nginx(const std::string& folder, int origin_port) {
  static constexpr const char* kNginx = "/usr/sbin/nginx";
  if (!std::filesystem::exists(kNginx)) return std::nullopt;
  const int port = free_port();
  std::ofstream file(folder + "/nginx.conf");
  file << fmt::format(
      "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log crit;\n"
      "events {{ worker_connections 4096; }}\n"
      "http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f;\n"
      "  uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; keepalive_requests 1000000000;\n"
      "  upstream origin {{ server 127.0.0.1:{1}; keepalive 1024; keepalive_requests 1000000000; }}\n"
      "  server {{ listen 127.0.0.1:{2} backlog=4096; location / {{ proxy_pass http://origin; proxy_http_version 1.1;\n"
      "    proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n",
      folder, origin_port, port);
  file.close();
  return Child::start({kNginx, "-p", folder, "-c", folder + "/nginx.conf"}, port);
}

}  // namespace capstan::bench_gateway
