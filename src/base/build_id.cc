// How: the build id is an ELF note of the main program, which the loader's list of loaded segments names
// first.
#include "base/build_id.h"

#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstring>
#include <span>

#include "base/text.h"

namespace capstan {
namespace {

std::size_t padded(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

// Looks through one segment of notes for the GNU build id.
std::string find_build_id(const std::uint8_t* notes, std::size_t length) {
  for (std::size_t at = 0; at + sizeof(ElfW(Nhdr)) <= length;) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes + at, sizeof header);
    const std::size_t name = at + sizeof header;
    const std::size_t description = name + padded(header.n_namesz);
    if (description + header.n_descsz > length) return {};
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 &&
        std::memcmp(notes + name, "GNU", 4) == 0) {
      return hex(std::span(notes + description, header.n_descsz)).substr(0, 12);
    }
    at = description + padded(header.n_descsz);
  }
  return {};
}

// The first object of the list is the program itself: a non-zero answer ends the walk there.
int visit(dl_phdr_info* info, std::size_t, void* out) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const auto* notes = reinterpret_cast<const std::uint8_t*>(info->dlpi_addr + header.p_vaddr);
    std::string found = find_build_id(notes, header.p_memsz);
    if (!found.empty()) *static_cast<std::string*>(out) = std::move(found);
  }
  return 1;
}

}  // namespace

const std::string& build_id() {
  static const std::string id = [] {
    std::string found;
    dl_iterate_phdr(visit, &found);
    return found.empty() ? std::string("unknown") : found;
  }();
  return id;
}

}  // namespace capstan
