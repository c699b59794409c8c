// How it works: a new mount namespace, private; the new root assembled detached from a tmpfs and clones of
// the host's trees; pivot_root onto it and the old root unmounted. The host's namespace stays reachable by
// descriptor only.
#include "sandbox/launch/template_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {

// Anything of the host that exists serves to hold the new root for a moment.
constexpr const char* kStage = "/proc";
constexpr std::size_t kEtcFileBytesMax = 4 << 20;
constexpr const char* kMerged[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
constexpr const char* kEtcEntries[] = {"ld.so.cache",
                                       "ld.so.conf",
                                       "ld.so.conf.d",
                                       "nsswitch.conf",
                                       "host.conf",
                                       "gai.conf",
                                       "localtime",
                                       "timezone",
                                       "mime.types",
                                       "protocols",
                                       "services",
                                       "alternatives",
                                       "os-release",
                                       "debian_version",
                                       "profile",
                                       "bash.bashrc",
                                       "inputrc",
                                       "terminfo",
                                       "magic",
                                       "magic.mime",
                                       "python3",
                                       "python3.11",
                                       "ca-certificates.conf"};
constexpr const char* kPasswd =
    "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/work:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

struct Device {
  const char* name;
  unsigned major, minor;
};
constexpr Device kDevices[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                               {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

bool put(int directory, const char* name, const void* bytes, std::size_t size) {
  const Fd file(::openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  return file && ::write(file.get(), bytes, size) == static_cast<ssize_t>(size);
}

// Copies a file, link or directory of the host's /etc. What cannot be read, is too large or is not for
// everybody is left out: a sandbox can do without.
void copy_entry(int from, int to, const char* name, int depth) {
  struct stat information {};
  if (depth > 4 || ::fstatat(from, name, &information, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (S_ISLNK(information.st_mode)) {
    char target[512];
    const ssize_t size = ::readlinkat(from, name, target, sizeof target - 1);
    if (size <= 0) return;
    target[size] = '\0';
    (void)!::symlinkat(target, to, name);
  } else if (S_ISDIR(information.st_mode) && (information.st_mode & S_IROTH) != 0) {
    const int source = ::openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ::mkdirat(to, name, 0755);
    const Fd target(::openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR* entries = source < 0 ? nullptr : ::fdopendir(source);
    if (entries == nullptr) return;
    while (const dirent* entry = ::readdir(entries)) {
      if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
      copy_entry(source, target.get(), entry->d_name, depth + 1);
    }
    ::closedir(entries);
  } else if (S_ISREG(information.st_mode) && (information.st_mode & S_IROTH) != 0) {
    if (static_cast<std::size_t>(information.st_size) > kEtcFileBytesMax) return;
    const Fd source(::openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    std::string bytes(static_cast<std::size_t>(information.st_size), '\0');
    if (source && ::read(source.get(), bytes.data(), bytes.size()) == information.st_size)
      put(to, name, bytes.data(), bytes.size());
  }
}

void fill_etc(int root) {
  ::mkdirat(root, "etc", 0755);
  const Fd etc(::openat(root, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd host(::open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const char* entry : kEtcEntries) copy_entry(host.get(), etc.get(), entry, 0);
  ::mkdirat(etc.get(), "ssl", 0755);
  const Fd ssl(::openat(etc.get(), "ssl", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd host_ssl(::open("/etc/ssl", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const char* entry : {"certs", "openssl.cnf"}) copy_entry(host_ssl.get(), ssl.get(), entry, 0);
  put(etc.get(), "passwd", kPasswd, std::strlen(kPasswd));
  constexpr const char* kGroup = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n";
  put(etc.get(), "group", kGroup, std::strlen(kGroup));
  constexpr const char* kHosts = "127.0.0.1 localhost sandbox\n::1 localhost\n";
  put(etc.get(), "hosts", kHosts, std::strlen(kHosts));
}

bool fill_devices(int root) {
  ::mkdirat(root, "dev", 0755);
  const Fd dev(::openat(root, "dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const Device& device : kDevices) {
    if (::mknodat(dev.get(), device.name, S_IFCHR | 0666, makedev(device.major, device.minor)) != 0 ||
        ::fchmodat(dev.get(), device.name, 0666, 0) != 0) {
      return false;
    }
  }
  for (const char* directory : {"shm", "pts"}) ::mkdirat(dev.get(), directory, 0755);
  constexpr const char* kLinks[][2] = {{"/proc/self/fd", "fd"},
                                       {"/proc/self/fd/0", "stdin"},
                                       {"/proc/self/fd/1", "stdout"},
                                       {"/proc/self/fd/2", "stderr"},
                                       {"pts/ptmx", "ptmx"}};
  for (const auto& link : kLinks) {
    if (::symlinkat(link[0], dev.get(), link[1]) != 0) return false;
  }
  return true;
}

// Everything that a root has, as a detached tmpfs; /usr and whatever is not merged into it comes later.
Fault make_default(Fd& root) {
  const Fd context(kernel::fsopen("tmpfs"));
  if (!context || kernel::fsconfig(context.get(), FSCONFIG_SET_STRING, "size", "64m") != 0 ||
      kernel::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0755") != 0 ||
      kernel::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
    return "make a root";
  }
  root.reset(kernel::fsmount(context.get(), MOUNT_ATTR_NOSUID));
  if (!root) return "mount a root";
  for (const char* directory : {"usr", "proc", "run", "tmp", "work", "mnt", "opt", "var", "home"}) {
    if (::mkdirat(root.get(), directory, 0755) != 0) return "make directories of the root";
  }
  (void)!::symlinkat("/tmp", root.get(), "var/tmp");
  (void)!::symlinkat("/work", root.get(), "home/user");
  if (!fill_devices(root.get())) return "make devices";
  fill_etc(root.get());
  return nullptr;
}

// Clones of the host's program directories, to attach once the root is in place.
Fault add_programs(int root, std::map<std::string, Fd>& trees) {
  const Fd host(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  trees["usr"] = Fd(kernel::clone_tree(AT_FDCWD, "/usr", true));
  if (!trees["usr"]) return "clone /usr";
  for (const char* name : kMerged) {
    const std::string path = std::string("/") + name;
    struct stat information {};
    if (::lstat(path.c_str(), &information) != 0) continue;
    if (S_ISLNK(information.st_mode)) {
      copy_entry(host.get(), root, name, 0);
      continue;
    }
    ::mkdirat(root, name, 0755);
    trees[name] = Fd(kernel::clone_tree(AT_FDCWD, path.c_str(), true));
    if (!trees[name]) return "clone a program directory";
  }
  return nullptr;
}

Fault become_root_of(int root, const std::map<std::string, Fd>& trees, std::uint64_t attributes) {
  if (kernel::attach(root, kStage) != 0 || ::chdir(kStage) != 0) return "attach the root";
  for (const auto& [name, tree] : trees) {
    if (kernel::attach(tree.get(), name.c_str()) != 0) return "attach a directory to the root";
    const std::uint64_t locked =
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (name == "dev" ? 0 : MOUNT_ATTR_NODEV);
    if (kernel::set_mount_attributes(AT_FDCWD, name.c_str(), AT_RECURSIVE, locked) != 0)
      return "lock a directory";
  }
  if (::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return "change the root";
  return kernel::set_mount_attributes(AT_FDCWD, "/", 0, attributes) == 0 ? nullptr : "lock the root";
}

}  // namespace

Fault TemplateRoots::start() {
  host_.reset(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  proc_.reset(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!host_ || !proc_) return "open /proc";
  return build(-1);
}

// In the host's mount namespace; ends in a new one, which it remembers under current_.
Fault TemplateRoots::build(int source) {
  std::map<std::string, Fd> trees;
  Fd root;
  if (source >= 0) {
    root.reset(kernel::clone_tree(source, "", true));
    if (!root) return "clone the template's directory";
    if (::setns(roots_[""].get(), CLONE_NEWNS) != 0) return "enter a mount namespace";
    trees["dev"] = Fd(kernel::clone_tree(AT_FDCWD, "/dev", true));
    if (!trees["dev"] || ::setns(host_.get(), CLONE_NEWNS) != 0) return "clone devices";
  }
  if (::unshare(CLONE_NEWNS) != 0) return "make a mount namespace";
  if (kernel::set_mount_attributes(AT_FDCWD, "/", AT_RECURSIVE, 0, MS_PRIVATE) != 0)
    return "make mounts private";
  if (source < 0) {
    if (const Fault fault = make_default(root)) return fault;
    if (const Fault fault = add_programs(root.get(), trees)) return fault;
  } else if (kernel::set_mount_attributes(root.get(), "", AT_EMPTY_PATH | AT_RECURSIVE,
                                          MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) != 0) {
    return "lock the template's directory";
  }
  const std::uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
  if (const Fault fault = become_root_of(root.get(), trees, attributes)) return fault;
  roots_[current_] = Fd(::openat(proc_.get(), "self/ns/mnt", O_RDONLY | O_CLOEXEC));
  return roots_[current_] ? nullptr : "open the new mount namespace";
}

Fault TemplateRoots::prepare(const std::string& name, int directory) {
  if (roots_.contains(name)) return nullptr;
  if (::setns(host_.get(), CLONE_NEWNS) != 0) return "return to the host's mounts";
  current_ = name;
  const Fault fault = build(directory);
  const int error = errno;
  if (fault != nullptr) roots_.erase(name);
  current_ = "?";  // enter() must move, wherever a failure left us
  const Fault back = enter("");
  errno = error;
  return fault != nullptr ? fault : back;
}

Fault TemplateRoots::enter(const std::string& name) {
  if (name == current_) return nullptr;
  const auto found = roots_.find(name);
  if (found == roots_.end() || ::setns(found->second.get(), CLONE_NEWNS) != 0)
    return "enter the template's root";
  current_ = name;
  return nullptr;
}

Fd TemplateRoots::clone_of_host(int descriptor, bool writable) {
  if (::setns(host_.get(), CLONE_NEWNS) != 0) return Fd();
  Fd tree(kernel::clone_tree(descriptor, "", false));
  const int error = errno;
  const std::string back = current_;
  current_ = "?";
  if (enter(back) != nullptr) return Fd();
  const std::uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (writable ? 0 : MOUNT_ATTR_RDONLY);
  if (tree && kernel::set_mount_attributes(tree.get(), "", AT_EMPTY_PATH, attributes) != 0) return Fd();
  errno = error;
  return tree;
}

}  // namespace capstan::sandbox
