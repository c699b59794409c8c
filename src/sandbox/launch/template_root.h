// The root that sandboxes see: a mount namespace, prepared once per template, that each sandbox copies.
//
// The default one has this host's /usr read-only, a minimal /etc (never accounts, keys or secrets), a few
// devices, and mount points for what each sandbox makes for itself. A directory of a template replaces all
// but the devices; it must have /proc, /dev, /run, /tmp, /work and /mnt as empty directories. Nothing else of
// the host is there: what is not mounted cannot be reached. Threads: one (it moves the calling process
// between mount namespaces).  Failure: a Fault.
#pragma once

#include <map>
#include <string>

#include "sandbox/launch/confine.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

class TemplateRoots {
 public:
  // Leaves the host's mounts for the default root; keeps ways back. Call once.
  Fault start();
  // Makes sure that there is a root for this template; `directory` is its descriptor, opened on the host.
  Fault prepare(const std::string& name, int directory);
  // Moves this process into the template's mount namespace ("" is the default), where a child is to be made.
  Fault enter(const std::string& name);
  int host_mounts() const { return host_.get(); }
  int default_mounts() const { return roots_.at("").get(); }
  // A detached, locked-down copy of what the caller's descriptor names on the host; -1 with errno.
  Fd clone_of_host(int descriptor, bool writable);

 private:
  Fault build(int source);
  Fd host_, proc_;
  std::map<std::string, Fd> roots_;
  std::string current_;
};

}  // namespace capstan::sandbox
