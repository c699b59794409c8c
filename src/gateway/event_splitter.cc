#include "gateway/event_splitter.h"

namespace capstan::gateway {

std::size_t EventSplitter::event_end(std::string_view text) {
  for (std::size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1)) {
    if (at + 1 < text.size() && text[at + 1] == '\n') return at + 2;
    if (at + 2 < text.size() && text[at + 1] == '\r' && text[at + 2] == '\n') return at + 3;
  }
  return 0;
}

std::string_view EventSplitter::data_of(std::string_view raw) {
  std::string_view first;
  bool several = false;
  while (!raw.empty()) {
    const auto end = raw.find('\n');
    std::string_view line = raw.substr(0, end);
    raw.remove_prefix(end == std::string_view::npos ? raw.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.starts_with("data:")) continue;
    line.remove_prefix(5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (first.data() == nullptr) {
      first = line;
      continue;
    }
    if (!several) joined_ = first;
    several = true;
    joined_.append("\n").append(line);
  }
  return several ? std::string_view(joined_) : first;
}

}  // namespace capstan::gateway
