// A recording of an episode: a file with one JSON object a line: the episode, its steps, its end.
//
//   CAPSTAN_TRY(auto writer, RecordingWriter::create(path, spec, {.model_server = url}));
//   writer->add(step); …  CAPSTAN_CHECK(writer->finish(end));
//   CAPSTAN_TRY(Recording recording, read_recording(path));
//
// The file is PATH.part until its end is written and on the disk; so a file named PATH is whole. Format:
// docs/formats/agent-steps.md.  Threads: one owner.  Failure: kIo, kExhausted, kConflict (the path exists);
// reading: kNotFound, kCorrupt with the line.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "agents/loop/spec.h"
#include "agents/loop/step.h"

namespace capstan::agents::loop {

inline constexpr int kRecordingVersion = 1;
inline constexpr std::uint64_t kRecordingBytesMax = 1u << 30;

struct Recording {
  AgentSpec spec;
  std::string spec_hash;
  std::int64_t task = 0, episode = 0;  // of an array, from 0
  std::int64_t began_ms = 0;           // since the epoch
  std::string server;                  // who answered
  std::vector<Step> steps;
  End end;
};

struct RecordingHead {
  std::int64_t task = 0, episode = 0;
  std::int64_t began_ms = 0;
  std::string server;
};

class RecordingWriter {
 public:
  static Result<std::unique_ptr<RecordingWriter>> create(const std::filesystem::path& path,
                                                         const AgentSpec& spec, const RecordingHead& head);
  ~RecordingWriter();
  // A failed write is told by finish().
  void add(const Step& step);
  Result<void> finish(const End& end);

 private:
  explicit RecordingWriter(std::filesystem::path path) : path_(std::move(path)) {}
  void line(const Json& json);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

Result<Recording> read_recording(const std::filesystem::path& path);

}  // namespace capstan::agents::loop
