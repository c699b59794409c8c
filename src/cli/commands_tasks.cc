// wait, results: a workload's progress until it has ended; what tasks in sandboxes gave.
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "base/steady_time.h"
#include "cli/commands.h"
#include "cli/format.h"

namespace capstan::cli {
namespace {

constexpr int kPollMs = 500;
constexpr int kLineMs = 10'000;  // where there is no terminal to draw on
constexpr int kBarWidth = 30;

bool has_ended(const std::string& state) {
  return state == "succeeded" || state == "failed" || state == "cancelled";
}

// Speed and what is left are of the time since the first look.
class Progress {
 public:
  std::string text(const Json& workload) {
    const std::int64_t ready = number_of(workload, "ready"),
                       wanted = std::max<std::int64_t>(number_of(workload, "wanted"), 1);
    if (began_ms_ == 0) {
      began_ms_ = steady_now_ms();
      first_ = ready;
    }
    const auto filled = static_cast<int>(ready * kBarWidth / wanted);
    std::string bar(static_cast<std::size_t>(filled), '#');
    bar.resize(kBarWidth, '.');
    std::string line = fmt::format("[{}] {}/{} {}", bar, ready, wanted, text_of(workload, "state"));
    if (const Json* tasks = workload.find("tasks"); tasks != nullptr && number_of(*tasks, "failed") > 0)
      line += fmt::format(", {} failed", number_of(*tasks, "failed"));
    const std::int64_t elapsed_ms = steady_now_ms() - began_ms_, done = ready - first_;
    if (done > 0 && elapsed_ms >= 1000) {
      line += fmt::format(", {}/s", done * 1000 / elapsed_ms);
      if (ready < wanted) line += fmt::format(", {} s left", (wanted - ready) * elapsed_ms / done / 1000);
    }
    return line;
  }

 private:
  std::int64_t began_ms_ = 0, first_ = 0;
};

// As much of a line as the terminal's width holds: one that wraps could not be drawn over.
std::string fitted(std::string line) {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && line.size() >= size.ws_col)
    line.resize(size.ws_col - 1u);
  return line;
}

}  // namespace

int wait(const Globals& globals, const std::vector<std::string>& names) {
  int exit_code = kOk;
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  for (const std::string& name : names) {
    Progress progress;
    std::int64_t shown_ms = 0;
    for (std::string state; !has_ended(state);) {
      // The controller may be on its way back.
      const auto workload = request(globals, "/api/v1/workloads/" + url_encode(name));
      if (!workload && workload.error().code != Code::kUnavailable) return report(workload.error());
      if (workload) {
        state = text_of(*workload, "state");
        const bool show = terminal || has_ended(state) || steady_now_ms() - shown_ms >= kLineMs;
        if (show) {
          shown_ms = steady_now_ms();
          const std::string line = name + ": " + progress.text(*workload);
          if (terminal) fmt::print(stderr, "\r\033[K");
          if (terminal && !has_ended(state))
            fmt::print(stderr, "{}", fitted(line));
          else
            fmt::print(stderr, "{}\n", line);
          std::fflush(stderr);
        }
        if (has_ended(state) && state != "succeeded") {
          fmt::print(stderr, "capstan: {} {}: {}\n", name, state, text_of(*workload, "reason"));
          exit_code = kFailed;
        }
      }
      if (!has_ended(state)) std::this_thread::sleep_for(std::chrono::milliseconds(kPollMs));
    }
  }
  return exit_code;
}

int results(const Globals& globals, const ResultsOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  std::string rest;
  const auto result =
      api->stream("/api/v1/workloads/" + url_encode(options.name) + "/results", [&](std::string_view piece) {
        if (!options.failed) return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size();
        rest += piece;
        std::size_t begin = 0;
        for (std::size_t end; (end = rest.find('\n', begin)) != rest.npos; begin = end + 1) {
          const std::string_view line(rest.data() + begin, end + 1 - begin);
          // As the worker writes it: the index, then whether all is well.
          if (line.substr(0, 60).find(",\"ok\":true,") == line.npos)
            std::fwrite(line.data(), 1, line.size(), stdout);
        }
        rest.erase(0, begin);
        return true;
      });
  std::fflush(stdout);
  return result ? kOk : report(result.error());
}

}  // namespace capstan::cli
