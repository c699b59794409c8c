#include "workload/yaml_reader.h"

// How: yaml-cpp's parser sends events, a Builder makes the tree from them and keeps the bounds. Its own
// document loader is not used: it loops for ever on some malformed texts, and multiplies aliases without a
// limit.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <sstream>

namespace capstan::workload {
namespace {

// Thrown and caught in this file only: leaves the parser with a position.
struct Refused {
  YAML::Mark mark;
  std::string message;
};

void set_position(const YAML::Mark& mark, int& line, int& column) {
  line = mark.line + 1;
  column = mark.column + 1;
}

int count_nodes(const Yaml& node) {
  int count = 1;
  for (const Yaml& item : node.items) count += count_nodes(item);
  for (const auto& [key, value] : node.members) count += count_nodes(value);
  return count;
}

class Builder final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_.size() > kDocumentsMax)
      throw Refused{mark, fmt::format("more than {} documents", kDocumentsMax)};
    anchors_.clear();
    documents_.emplace_back();
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(mark, make(mark, Yaml::Type::kNull), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Refused{mark, "an alias stands inside what it names"};
    Yaml copy = found->second;
    copy.line = mark.line + 1;
    copy.column = mark.column + 1;
    spend(mark, count_nodes(copy));
    add(mark, std::move(copy), YAML::NullAnchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // A plain `~` or `null` is empty; a quoted one ("!" is yaml-cpp's tag for quoted) is text.
    const bool null = tag != "!" && (value == "~" || value == "null" || value.empty());
    Yaml node = make(mark, null ? Yaml::Type::kNull : Yaml::Type::kScalar);
    node.scalar = value;
    add(mark, std::move(node), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, Yaml::Type::kSequence, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, Yaml::Type::kMapping, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

  // Documents that hold something.
  std::vector<Yaml> take() {
    std::erase_if(documents_, [](const Yaml& document) { return document.type == Yaml::Type::kNull; });
    return std::move(documents_);
  }

 private:
  struct Open {
    Yaml node;
    YAML::anchor_t anchor;
    std::optional<Yaml::Key> key;  // of a mapping: the key whose value comes next
  };

  Yaml make(const YAML::Mark& mark, Yaml::Type type) {
    spend(mark, 1);
    Yaml node;
    node.type = type;
    set_position(mark, node.line, node.column);
    return node;
  }

  void spend(const YAML::Mark& mark, int nodes) {
    nodes_left_ -= nodes;
    if (nodes_left_ < 0)
      throw Refused{mark, fmt::format("more than {} values (do aliases multiply?)", kYamlNodesMax)};
  }

  void open(const YAML::Mark& mark, Yaml::Type type, YAML::anchor_t anchor) {
    if (open_.size() >= kYamlDepthMax)
      throw Refused{mark, fmt::format("nested deeper than {} levels", kYamlDepthMax)};
    open_.push_back({make(mark, type), anchor, {}});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    const YAML::Mark mark;
    add(mark, std::move(done.node), done.anchor);
  }

  void add(const YAML::Mark& mark, Yaml node, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    if (open_.empty()) {
      documents_.back() = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.type == Yaml::Type::kSequence) {
      parent.node.items.push_back(std::move(node));
    } else if (parent.key) {
      parent.node.members.emplace_back(*std::exchange(parent.key, std::nullopt), std::move(node));
    } else if (node.type == Yaml::Type::kScalar) {
      parent.key = Yaml::Key{std::move(node.scalar), node.line, node.column};
    } else {
      throw Refused{mark.is_null() ? YAML::Mark() : mark, "a key must be a plain word"};
    }
  }

  std::vector<Yaml> documents_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Yaml> anchors_;
  int nodes_left_ = kYamlNodesMax;
};

// What yaml-cpp's terse messages mean to somebody who writes a spec.
std::string explain(const std::string& message) {
  if (message == "illegal map value")
    return "a ':' where none can stand; is the line indented like its neighbours?";
  if (message == "end of map not found")
    return "the mapping does not end here; is the line indented like its neighbours?";
  if (message == "end of map flow not found") return "'{' is not closed by '}'";
  if (message == "end of sequence flow not found") return "'[' is not closed by ']'";
  return message;
}

}  // namespace

std::string_view Yaml::type_name() const {
  switch (type) {
    case Type::kNull:
      return "nothing";
    case Type::kScalar:
      return "a value";
    case Type::kSequence:
      return "a list";
    case Type::kMapping:
      return "a mapping";
  }
  return "nothing";
}

std::expected<std::vector<Yaml>, Diagnostic> read_yaml(std::string_view text, std::string_view source) {
  const auto refuse = [&](const YAML::Mark& mark, std::string message) {
    Diagnostic diagnostic;
    diagnostic.file = source;
    set_position(mark, diagnostic.line, diagnostic.column);
    diagnostic.message = std::move(message);
    return std::unexpected(std::move(diagnostic));
  };
  Builder builder;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refused& refused) {
    return refuse(refused.mark, refused.message);
  } catch (const YAML::Exception& exception) {
    return refuse(exception.mark, "not valid YAML: " + explain(exception.msg));
  }
  return builder.take();
}

}  // namespace capstan::workload
