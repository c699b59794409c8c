// How many processors this process may run on.
#pragma once

namespace capstan {

// At least 1. By the affinity mask; where that cannot be read (more than 1,024 processors), all that are online.
int usable_cpus();

}  // namespace capstan
