// Changes below a directory of a session, as they happen.
//
//   CAPSTAN_TRY(auto watch, DirectoryWatch::start(loop, session.root_fd(), "/work/src", {.recursive = true}, on_change));
//   watch->stop();
//
// Names are relative to the directory. A file that is moved away gives kRename with its old name, one that arrives
// kCreate. Directories made while a recursive watch runs are watched, too; what was put into them before that is reported
// as made. Threads: start from any; changes come on the loop, until stop(), which any thread may call.
// Bounds: kDirectoriesMax.  Failure: of the directory; kExhausted. When changes come faster than they are read, one
// kOverflow says that some are missing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/event_loop.h"
#include "sandbox/wire.h"

namespace capstan::agents {

inline constexpr std::size_t kDirectoriesMax = 4'096;

enum class Change { kCreate, kWrite, kRemove, kRename, kChmod, kOverflow };

class DirectoryWatch final : public std::enable_shared_from_this<DirectoryWatch>, private http::EventLoop::Watcher {
 public:
  struct Options {
    bool recursive = false;
  };
  using OnChange = std::function<void(Change change, const std::string& name)>;
  // `inside` as path_inside() gives it.
  static Result<std::shared_ptr<DirectoryWatch>> start(http::EventLoop& loop, int root, const std::string& inside,
                                                       const Options& options, OnChange on_change);
  DirectoryWatch(http::EventLoop& loop, const Options& options, OnChange on_change);
  void stop();
  http::EventLoop& loop() const { return loop_; }

 private:
  Result<void> add(int directory, const std::string& name, bool report);
  void on_ready(std::uint32_t events) override;
  void on_event(int watch, std::uint32_t mask, const std::string& name);

  http::EventLoop& loop_;
  const Options options_;
  OnChange on_change_;
  sandbox::Fd notify_;
  struct Watched {
    std::string prefix;     // of its entries' names: "" or "below/"
    sandbox::Fd directory;  // O_PATH
  };
  std::map<int, Watched> watched_;  // of the loop, once it is watched
  bool stopped_ = false;            // of the loop
};

}  // namespace capstan::agents
