// Huge pages: makes a large process cheap to fork.
//
// A fork copies one table entry for each 4 KiB page of memory, 20 to 30 ms per GB; of a 2 MiB page it copies
// one. gather_huge_pages() asks the kernel (MADV_COLLAPSE, Linux 6.1) to gather the pages of large, densely
// used regions (a heap, never thread stacks). Pages that were written while a child lived are small again, so
// it is called before each fork. Cost: about 0.3 s per GB for the caller, which is therefore not the thread
// that must not wait; others may wait for one 2 MiB region, below a millisecond.  Memory: at most a third
// more in such a region. Failure: none; where the kernel cannot, forks stay slow.  Threads: any, also
// several.
#pragma once

#include <cstdint>

namespace capstan::journal {

// How many bytes were gathered now.
std::int64_t gather_huge_pages();

}  // namespace capstan::journal
