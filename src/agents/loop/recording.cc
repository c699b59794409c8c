// Lines are flushed as they are written, so that a run can be watched; the name and the disk come at the end.
#include "agents/loop/recording.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

namespace capstan::agents::loop {
namespace {

std::filesystem::path part_of(const std::filesystem::path& path) { return path.string() + ".part"; }

Result<void> read_head(const Json& json, Recording& out) {
  if (json.get_string("kind") != "episode") return fail(Code::kCorrupt, "the first line is not an episode's");
  const std::int64_t version = json.get_int("version").value_or(0);
  if (version != kRecordingVersion) {
    return fail(Code::kUnsupported, "the recording has version {}, this build reads {}", version,
                kRecordingVersion);
  }
  const Json* spec = json.find("spec");
  if (spec == nullptr) return fail(Code::kCorrupt, "the first line has no 'spec'");
  CAPSTAN_TRY(out.spec, agent_from_json(*spec));
  out.spec_hash = json.get_string("spec_hash").value_or("");
  if (out.spec.hash() != out.spec_hash)
    return fail(Code::kCorrupt, "the spec is not the one that was run: its hash differs");
  out.task = json.get_int("task").value_or(0);
  out.episode = json.get_int("episode").value_or(0);
  out.began_ms = json.get_int("began_ms").value_or(0);
  out.server = json.get_string("server").value_or("");
  return {};
}

Result<void> read_line(std::string_view line, bool first, bool& ended, Recording& out) {
  CAPSTAN_TRY(const Json json, Json::parse(line));
  if (first) return read_head(json, out);
  if (ended) return fail(Code::kCorrupt, "something stands behind the end");
  if (json.get_string("kind") == "end") {
    CAPSTAN_TRY(out.end, End::from_json(json));
    ended = true;
    return {};
  }
  CAPSTAN_TRY(Step step, Step::from_json(json));
  if (step.number != static_cast<std::int64_t>(out.steps.size()) + 1) {
    return fail(Code::kCorrupt, "step {} stands where {} should", step.number, out.steps.size() + 1);
  }
  out.steps.push_back(std::move(step));
  return {};
}

}  // namespace

Result<std::unique_ptr<RecordingWriter>> RecordingWriter::create(const std::filesystem::path& path,
                                                                 const AgentSpec& spec,
                                                                 const RecordingHead& head) {
  if (std::filesystem::exists(path))
    return fail(Code::kConflict, "{} exists; recordings are not written over", path.string());
  std::unique_ptr<RecordingWriter> writer(new RecordingWriter(path));
  writer->file_ = std::fopen(part_of(path).c_str(), "we");
  if (writer->file_ == nullptr) return fail_errno("cannot write " + part_of(path).string(), errno);
  writer->line(Json::object({{"kind", "episode"},
                             {"version", kRecordingVersion},
                             {"name", spec.name},
                             {"task", head.task},
                             {"episode", head.episode},
                             {"began_ms", head.began_ms},
                             {"server", head.server},
                             {"spec_hash", spec.hash()},
                             {"spec", spec.to_json()}}));
  return writer;
}

RecordingWriter::~RecordingWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

void RecordingWriter::line(const Json& json) {
  std::string text = json.dump();
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), file_);
  std::fflush(file_);
}

void RecordingWriter::add(const Step& step) { line(step.to_json()); }

Result<void> RecordingWriter::finish(const End& end) {
  line(end.to_json());
  const bool good = std::ferror(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  const int error = errno;
  std::fclose(std::exchange(file_, nullptr));
  if (!good) return fail_errno("cannot write " + part_of(path_).string(), error);
  std::error_code renamed;
  std::filesystem::rename(part_of(path_), path_, renamed);
  if (renamed) return fail_errno("cannot rename " + part_of(path_).string(), renamed.value());
  return {};
}

Result<Recording> read_recording(const std::filesystem::path& path) {
  CAPSTAN_TRY(const std::string text, read_file(path, kRecordingBytesMax));
  Recording out;
  bool ended = false;
  int number = 0;
  for (const std::string_view line : split(text, '\n')) {
    if (line.empty()) continue;
    const auto read = read_line(line, ++number == 1, ended, out);
    if (!read)
      return std::unexpected(Error(read.error()).with_context(fmt::format("{}:{}", path.string(), number)));
  }
  if (!ended) {
    return fail(Code::kCorrupt, "{} has no end: the episode was broken off, or the file was cut",
                path.string());
  }
  return out;
}

}  // namespace capstan::agents::loop
