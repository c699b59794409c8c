#include "sandbox/launch/descriptors.h"

#include <fcntl.h>
#include <unistd.h>

namespace capstan::sandbox {

void keep_descriptors(std::vector<int*>& kept) {
  constexpr int kFirstOwned = 3;
  // Not far above: the size of a descriptor table follows the highest number it ever had.
  const int aside = kFirstOwned + static_cast<int>(kept.size());
  for (int* fd : kept) *fd = ::fcntl(*fd, F_DUPFD_CLOEXEC, aside);
  for (std::size_t i = 0; i < kept.size(); ++i)
    *kept[i] = ::dup3(*kept[i], kFirstOwned + static_cast<int>(i), O_CLOEXEC);
  ::close_range(static_cast<unsigned>(kFirstOwned + static_cast<int>(kept.size())), ~0u, 0);
}

}  // namespace capstan::sandbox
