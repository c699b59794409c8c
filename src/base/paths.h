// Where one user's Capstan keeps its data when nobody says otherwise.
#pragma once

#include <filesystem>

namespace capstan {

// Root: /var/lib/capstan. Else $XDG_STATE_HOME/capstan or ~/.local/state/capstan.
std::filesystem::path default_data_directory();
// What can be made again. Root: /var/cache/capstan. Else $XDG_CACHE_HOME/capstan or ~/.cache/capstan.
std::filesystem::path default_cache_directory();

}  // namespace capstan
