// How it works: inotify, through /proc/self/fd of directories that were opened inside without following links.
#include "agents/sessions/directory_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace capstan::agents {
namespace {

using sandbox::Fd;

constexpr std::uint32_t kMask = IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR;

Fd open_directory(int at, const char* path, bool in_root) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (in_root ? RESOLVE_IN_ROOT : RESOLVE_BENEATH);
  return Fd(static_cast<int>(::syscall(SYS_openat2, at, path, &how, sizeof how)));
}

}  // namespace

DirectoryWatch::DirectoryWatch(http::EventLoop& loop, const Options& options, OnChange on_change)
    : loop_(loop), options_(options), on_change_(std::move(on_change)) {}

Result<std::shared_ptr<DirectoryWatch>> DirectoryWatch::start(http::EventLoop& loop, int root, const std::string& inside,
                                                              const Options& options, OnChange on_change) {
  auto watch = std::make_shared<DirectoryWatch>(loop, options, std::move(on_change));
  watch->notify_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!watch->notify_) return fail_errno("cannot watch a directory", errno);
  const Fd directory = open_directory(root, inside.c_str(), true);
  if (!directory) return fail_errno("cannot watch " + inside + " in the sandbox", errno);
  CAPSTAN_CHECK(watch->add(directory.get(), "", false));
  loop.post([watch] {
    if (!watch->stopped_) watch->loop_.watch(watch->notify_.get(), EPOLLIN, *watch);
  });
  return watch;
}

// Before its entries are read, so that nothing is missed; what both see is reported twice.
Result<void> DirectoryWatch::add(int directory, const std::string& prefix, bool report) {
  if (watched_.size() >= kDirectoriesMax)
    return fail(Code::kExhausted, "more than {} directories to watch", kDirectoriesMax);
  const std::string path = fmt::format("/proc/self/fd/{}", directory);
  const int number = ::inotify_add_watch(notify_.get(), path.c_str(), kMask);
  if (number < 0) return fail_errno("cannot watch a directory", errno);
  watched_[number] = {prefix, Fd(::fcntl(directory, F_DUPFD_CLOEXEC, 3))};
  if (!options_.recursive) return {};
  Fd readable(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(readable ? ::fdopendir(readable.get()) : nullptr, ::closedir);
  if (entries) readable.release();
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (report) on_change_(Change::kCreate, prefix + name);
    if (entry->d_type != DT_DIR) continue;
    const Fd inner = open_directory(directory, entry->d_name, false);
    if (inner) CAPSTAN_CHECK(add(inner.get(), prefix + name + "/", report));
  }
  return {};
}

void DirectoryWatch::stop() {
  loop_.post([self = shared_from_this()] {
    if (std::exchange(self->stopped_, true)) return;
    self->loop_.unwatch(self->notify_.get(), *self);
    self->on_change_ = {};
    self->watched_.clear();
  });
}

void DirectoryWatch::on_ready(std::uint32_t) {
  const auto keep = shared_from_this();
  alignas(inotify_event) char buffer[16 << 10];
  const ssize_t count = ::read(notify_.get(), buffer, sizeof buffer);
  for (ssize_t at = 0; at + static_cast<ssize_t>(sizeof(inotify_event)) <= count && !stopped_;) {
    inotify_event event;
    std::memcpy(&event, buffer + at, sizeof event);
    const char* name = buffer + at + sizeof event;
    on_event(event.wd, event.mask, event.len > 0 ? std::string(name, ::strnlen(name, event.len)) : std::string());
    at += static_cast<ssize_t>(sizeof event + event.len);
  }
}

void DirectoryWatch::on_event(int watch, std::uint32_t mask, const std::string& name) {
  if ((mask & IN_Q_OVERFLOW) != 0) return on_change_(Change::kOverflow, "");
  const auto found = watched_.find(watch);
  if (found == watched_.end()) return;
  if ((mask & IN_IGNORED) != 0) {
    watched_.erase(found);
    return;
  }
  if (name.empty()) return;  // of the directory itself
  const std::string whole = found->second.prefix + name;
  const Change change = (mask & (IN_CREATE | IN_MOVED_TO)) != 0 ? Change::kCreate
                        : (mask & IN_MODIFY) != 0               ? Change::kWrite
                        : (mask & IN_DELETE) != 0               ? Change::kRemove
                        : (mask & IN_MOVED_FROM) != 0           ? Change::kRename
                                                                : Change::kChmod;
  on_change_(change, whole);
  if (change != Change::kCreate || (mask & IN_ISDIR) == 0 || !options_.recursive) return;
  const Fd inner = open_directory(found->second.directory.get(), name.c_str(), false);
  // One that cannot be watched any more (gone, too many) is as good as an overflow.
  if (inner && !add(inner.get(), whole + "/", true)) on_change_(Change::kOverflow, "");
}

}  // namespace capstan::agents
