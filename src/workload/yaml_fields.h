// Reads a YAML mapping field by field; everything that is wrong is collected with its place, nothing stops
// early.
//
//   Context context{"fleet.yaml"};
//   MappingReader mapping(context, document, "a document");
//   read_name(context, mapping, "name", true, out.name);
//   read_integer(context, mapping, "count", {1, 100'000}, out.count);
//   mapping.finish();                                    // what nobody asked for is unknown: "did you mean
//   …?" if (!context.diagnostics.empty()) return std::unexpected(std::move(context.diagnostics));
//
// A field that is absent, empty or wrong leaves `out` as it is.  Threads: none shared.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "workload/spec.h"
#include "workload/yaml_reader.h"

namespace capstan::workload {

// Where diagnostics go: in the order in which they were found, at most kDiagnosticsMax.
struct Context {
  std::string source;               // of messages: the file's name
  std::string base_directory = {};  // see ParseOptions
  std::vector<Diagnostic> diagnostics = {};

  void add(int line, int column, std::string message, std::string hint = {});
  void add(const Yaml& at, std::string message) { add(at.line, at.column, std::move(message)); }
};

// "did you mean 'ranks'?", and the word in `hint`; with nothing near, what is known.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> known, std::string& hint);

// One mapping: hands out members by key, then reports what nobody asked for. A node of another type is
// reported at once and reads as empty. Keys must outlive the reader (literals).
class MappingReader {
 public:
  MappingReader(Context& context, const Yaml& node, std::string_view what);
  // The member, or nullptr if it is absent or empty.
  const Yaml* take(std::string_view key);
  // The same for a key that was taken before, or is taken elsewhere.
  const Yaml* peek(std::string_view key) const;
  // A key that is known, but wrong here: reported with this message if it is there.
  void refuse(std::string_view key, std::string_view message);
  void finish();
  const Yaml& node() const { return node_; }

 private:
  Context& context_;
  const Yaml& node_;
  std::vector<std::string_view> known_;
  std::vector<std::string_view> refused_;
};

bool is_scalar(Context& context, const Yaml& value, std::string_view key);
void read_text(Context& context, MappingReader& mapping, std::string_view key, std::string& out);
// "true" and "false" only: YAML's "yes" and "on" are refused with a hint.
void read_bool(Context& context, MappingReader& mapping, std::string_view key, bool& out);

struct Range {
  std::int64_t low;
  std::int64_t high;
};
void read_integer(Context& context, MappingReader& mapping, std::string_view key, Range range,
                  std::int64_t& out);

using QuantityParser = Result<std::int64_t> (*)(std::string_view);
void read_quantity(Context& context, MappingReader& mapping, std::string_view key, QuantityParser parse,
                   std::int64_t& out);

// A DNS label: 1 to kNameLengthMax of a-z, 0-9 and '-', with a letter or digit at both ends.
bool is_name(std::string_view text);
void read_name(Context& context, MappingReader& mapping, std::string_view key, bool required,
               std::string& out);

}  // namespace capstan::workload
