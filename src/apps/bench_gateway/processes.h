// The servers that `make bench-gateway` compares, as child processes, and what CPU time they use.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::bench_gateway {

// Ends its process when it is destroyed.
class Child {
 public:
  // `argv[0]` is the program; its standard output's first line is the port if `port` is 0.
  static Result<Child> start(const std::vector<std::string>& argv, int port);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();
  int port() const { return port_; }
  std::string url() const;
  // User and system time of the process and its children, so far.
  double cpu_us() const;

 private:
  Child(pid_t pid, int input, int port) : pid_(pid), input_(input), port_(port) {}
  pid_t pid_;
  int input_;  // closing it ends our own servers
  int port_;
};

// nginx as a plain proxy with kept connections to the origin, in `folder`; nullopt where it is not installed.
std::optional<Result<Child>> start_nginx(const std::string& folder, int origin_port);

}  // namespace capstan::bench_gateway
