// Where the Responses API's code_interpreter runs its code: containers, each with a Python that keeps its variables.
//
//   if (auto able = runner.check(); !able) …                  // why this Capstan has no containers
//   run = runner.run({.caller = caller, .container = "cntr_…", .files = {}, .code = "6 * 7", .time_ms = 60'000}, done);
//   run.reset();                                              // gives it up: the code is interrupted, done never comes
//
// A container belongs to its caller's project, begins with its first code, and ends when it was idle for long.
// Threads: run() and what it returns on the gateway's event loop, and done comes there, once, not from inside
// run(); the others on any, and may block for a moment.
// Failure: what the code does wrong is in its Outcome; an error is one of the host of the containers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/admission.h"
#include "http/body_file.h"

namespace capstan::gateway::openai {

inline constexpr std::int64_t kCodeTimeMs = 60'000;  // that one piece of code may take
inline constexpr std::size_t kImageBytesMax = 4u << 20;  // of its images together

class CodeRunner {
 public:
  struct File {
    std::string id, name;  // a plain name
    std::shared_ptr<const http::BodyFile> content;  // shared with other work on it
  };
  struct Work {
    CallerPtr caller;
    std::string container;
    std::vector<File> files = {};  // to be in its working directory before the code; those that were put there stay as they are
    std::string code;
    std::int64_t time_ms = 0;  // then it is interrupted
  };
  struct Outcome {
    std::string logs = {};  // what it printed, its last expression's value, its traceback; bounded
    bool finished = true;   // false: it was interrupted, or its Python ended
    std::vector<std::string> images = {};  // what it showed, as data URLs; at most kImageBytesMax
  };
  class Run {
   public:
    virtual ~Run() = default;
  };

  virtual ~CodeRunner() = default;
  // kUnavailable, kUnsupported: there are no containers, and why.
  virtual Result<void> check() = 0;
  // kNotFound: the caller's project has no such container (any more).
  virtual Result<void> find(const Caller& caller, const std::string& container) = 0;
  virtual std::unique_ptr<Run> run(Work work, std::function<void(Result<Outcome>)> done) = 0;
};

}  // namespace capstan::gateway::openai
