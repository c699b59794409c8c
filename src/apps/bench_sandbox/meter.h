// What the sandbox benchmark reads off the machine: CPU time of everything that ran, and memory in use.
#pragma once

#include <cstdint>
#include <vector>

namespace capstan::bench_sandbox {

double now_ms();
// CPU time of this process, of another with all children that it waited for, and of the kernel's threads:
// what takes namespaces and cgroups apart runs there. Neighbours on the machine do not count, except for what
// they make the kernel do.
double cpu_ms(int other_process);
// Anonymous and shared memory, kernel stacks, page tables, slabs and per-CPU data of the whole machine.
double machine_memory_kib();
double quantile(std::vector<double> values, double q);

}  // namespace capstan::bench_sandbox
