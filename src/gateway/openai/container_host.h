// Where the containers of code_interpreter are, as their clients see and fill them.
//
// A container belongs to a project, and ends when it was idle for kContainerIdleMinutes. Its files are those of the
// code's working directory; their paths are relative to it.
// Threads: any; calls may block for a moment.  Failure: kNotFound a container or file that is not there (any more),
// kUnavailable or kUnsupported: there are no containers, and why; kExhausted: the project, or the container, is full.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gateway/admission.h"

namespace capstan::gateway::openai {

inline constexpr std::int64_t kContainerIdleMinutes = 20;

class ContainerHost {
 public:
  struct Container {
    std::string id, name;  // the name may be empty
    std::int64_t created_at = 0, last_active_at = 0;  // seconds
  };
  struct File {
    std::string path;
    std::int64_t bytes = 0, modified_at = 0;  // seconds
  };

  virtual ~ContainerHost() = default;
  virtual Result<Container> create(const Caller& caller, const std::string& id, const std::string& name) = 0;
  virtual Result<std::vector<Container>> list(const Caller& caller) = 0;  // oldest first
  virtual Result<Container> about(const Caller& caller, const std::string& id) = 0;
  virtual Result<void> remove(const Caller& caller, const std::string& id) = 0;
  virtual Result<std::vector<File>> files(const Caller& caller, const std::string& id) = 0;
  virtual Result<File> write(const Caller& caller, const std::string& id, const std::string& path, std::string_view bytes) = 0;
  virtual Result<std::string> read(const Caller& caller, const std::string& id, const std::string& path) = 0;
  virtual Result<void> remove_file(const Caller& caller, const std::string& id, const std::string& path) = 0;
};

}  // namespace capstan::gateway::openai
