// Python packages, installed by the pip of a template's root, in a sandbox made for it, and copied out.
//
//   CAPSTAN_CHECK(install_python(world, form, directory, [](std::string_view line) { … }, stop));
//
// The sandbox is like any other: no user of the host, nothing of the host but what the root shows and the directory of wheels,
// read-only. Its way out is the proxy, to the list's hosts and for as long as this lasts. What packages run when they are built
// runs there. The copy has directories, files and links; everything belongs to this process's user.
//
// Threads: any; waits until it is done, at most kInstallMs.  Bounds: kLayerBytesMax and kLayerFilesMax of what is installed,
// and half of this host's memory, in which it lies meanwhile.  Failure: kUnavailable with pip's last lines; kExhausted; of
// the launcher.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string_view>

#include "agents/egress/lookups.h"
#include "agents/sessions/templates.h"
#include "http/event_loop.h"
#include "sandbox/launcher.h"

namespace capstan::agents {

inline constexpr std::int64_t kLayerBytesMax = 16LL << 30;
inline constexpr std::int64_t kLayerFilesMax = 1'000'000;
inline constexpr std::int64_t kInstallMs = 30 * 60'000;

struct PipWorld {
  sandbox::Launcher& launcher;
  http::EventLoop& loop;                     // of the proxy
  const std::shared_ptr<Lookups>& lookups;  // shared by the sandboxes of a host
};

Result<void> install_python(const PipWorld& world, const Template& form, const std::filesystem::path& directory,
                            const std::function<void(std::string_view line)>& progress, std::stop_token stop);

}  // namespace capstan::agents
