// Which system calls a sandboxed program has. Reviewed by group; what is in neither list gives ENOSYS.
#pragma once

namespace capstan::sandbox {

// Known, and never for a sandbox: mounts and namespaces, other processes' memory, kernel interfaces of great depth,
// the host's clock, name, modules and power.
inline constexpr const char* kRefusedCalls[] = {
    "mount", "umount", "umount2", "pivot_root", "chroot", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
    "move_mount", "mount_setattr", "setns", "unshare", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp",
    "pidfd_getfd", "process_madvise", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "kexec_load", "kexec_file_load", "init_module",
    "finit_module", "delete_module", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm",
    "modify_ldt", "name_to_handle_at", "open_by_handle_at", "fanotify_init", "fanotify_mark", "lookup_dcookie",
    "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vhangup", "syslog", "sethostname", "setdomainname",
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "mbind", "move_pages", "migrate_pages",
    "set_mempolicy", "set_mempolicy_home_node", "memfd_secret", "mknod", "mknodat", "setuid", "setgid", "setreuid",
    "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "vm86", "vm86old", "remap_file_pages", "create_module", "get_kernel_syms", "query_module",
};

inline constexpr const char* kAllowedCalls[] = {
    // files
    "read", "write", "open", "openat", "openat2", "close", "close_range", "creat", "stat", "fstat", "lstat", "newfstatat",
    "statx", "statfs", "fstatfs", "poll", "ppoll", "select", "pselect6", "lseek", "pread64", "pwrite64", "readv", "writev",
    "preadv", "pwritev", "preadv2", "pwritev2", "access", "faccessat", "faccessat2", "pipe", "pipe2", "dup", "dup2", "dup3",
    "sendfile", "splice", "tee", "vmsplice", "copy_file_range", "fcntl", "flock", "fsync", "fdatasync", "sync", "syncfs",
    "sync_file_range", "truncate", "ftruncate", "fallocate", "fadvise64", "readahead", "getdents", "getdents64", "getcwd",
    "chdir", "fchdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink",
    "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown",
    "lchown", "fchownat", "umask", "utime", "utimes", "utimensat", "futimesat", "getxattr", "lgetxattr", "fgetxattr",
    "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr", "removexattr", "lremovexattr",
    "fremovexattr", "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "memfd_create",
    // memory
    "mmap", "mprotect", "munmap", "mremap", "brk", "madvise", "mincore", "msync", "mlock", "mlock2", "mlockall", "munlock",
    "munlockall", "membarrier", "get_mempolicy", "shmget", "shmat", "shmctl", "shmdt",
    // processes, threads, signals
    "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "kill", "tkill", "tgkill",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigpending", "rt_sigtimedwait",
    "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4", "pause", "alarm", "getitimer",
    "setitimer", "restart_syscall", "pidfd_open", "pidfd_send_signal", "gettid", "getpid", "getppid", "getpgid", "getpgrp",
    "setpgid", "getsid", "setsid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    "capget", "prctl", "arch_prctl", "set_tid_address", "set_robust_list", "get_robust_list", "futex", "futex_waitv",
    "rseq", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp",
    // scheduling and limits (raising them takes capabilities that nobody inside has)
    "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_setparam", "sched_getscheduler",
    "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval", "sched_getattr",
    "sched_setattr", "getpriority", "setpriority", "ioprio_get", "ioprio_set", "getrlimit", "setrlimit", "prlimit64",
    "getrusage", "getcpu", "times",
    // time
    "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "timer_create",
    "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime",
    "timerfd_gettime",
    // with rules on their arguments (filter.cc)
    "clone", "socket", "socketpair", "ioctl", "personality",
    // the system
    "uname", "sysinfo", "getrandom",
    // events
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_wait", "epoll_wait_old", "epoll_pwait",
    "epoll_pwait2", "eventfd", "eventfd2", "io_setup", "io_destroy", "io_getevents", "io_pgetevents", "io_submit",
    "io_cancel",
    // talk between processes; which sockets exist is decided by socket()
    "connect", "accept", "accept4", "bind", "listen", "getsockname", "getpeername", "setsockopt", "getsockopt", "sendto",
    "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "shutdown", "semget", "semop", "semtimedop", "semctl",
    "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify",
    "mq_getsetattr",
};

}  // namespace capstan::sandbox
