// The system call filter of every sandbox, compiled once and loaded as plain BPF at each start.
//
// An allow list with rules on arguments: no new namespaces, no sockets beyond the network's families, no
// injection into terminals. What is known and refused gives EPERM; what this list has never heard of gives
// ENOSYS, so that C libraries fall back (clone3 too: pthread_create then uses clone). Another architecture's
// entry (x32, int 0x80) kills. Cost: compiling a millisecond, once; loading about 60 µs.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "sandbox/spec.h"

namespace capstan::sandbox {

std::vector<sock_filter> compile_filter(Network network);

}  // namespace capstan::sandbox
