/* One attack on the sandbox that it runs in, named by its arguments; prints what came of it in one word:
 * "ok", an errno's name, or what the case itself says. The list of cases is attacks.txt.
 *
 *   syscall NUMBER [ARG…]        raw; an argument is a number, or s:TEXT for a string, or z:N for N zeroed bytes
 *   open PATH FLAGS              r, w, rw, c (create)
 *   socket DOMAIN TYPE PROTOCOL
 *   connect4|connect6|udp4 ADDRESS PORT
 *   the others: main()
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int said(long result) {
  puts(result >= 0 ? "ok" : strerrorname_np(errno));
  return 0;
}

static int raw(int argc, char** argv) {
  long args[6] = {0};
  for (int i = 3; i < argc && i < 9; ++i) {
    if (strncmp(argv[i], "s:", 2) == 0) args[i - 3] = (long)(argv[i] + 2);
    else if (strncmp(argv[i], "z:", 2) == 0) args[i - 3] = (long)calloc(1, strtoul(argv[i] + 2, NULL, 0));
    else args[i - 3] = (long)strtoul(argv[i], NULL, 0);
  }
  return said(syscall(strtol(argv[2], NULL, 0), args[0], args[1], args[2], args[3], args[4], args[5]));
}

static int open_file(const char* path, const char* how) {
  int flags = strcmp(how, "r") == 0 ? O_RDONLY : strcmp(how, "w") == 0 ? O_WRONLY : strcmp(how, "c") == 0 ? O_WRONLY | O_CREAT : O_RDWR;
  int fd = open(path, flags | O_NONBLOCK, 0644);
  char byte;
  if (fd >= 0 && flags == O_RDONLY && read(fd, &byte, 1) < 0 && errno != EISDIR) return said(-1);
  /* a device of nothing stands in for a masked file */
  struct stat information;
  if (fd >= 0 && fstat(fd, &information) == 0 && S_ISCHR(information.st_mode) && strcmp(path, "/dev/null") != 0 && read(fd, &byte, 1) == 0) {
    puts("masked");
    return 0;
  }
  return said(fd);
}

static int connect_to(const char* address, int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) return said(-1);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  inet_pton(AF_INET, address, &to.sin_addr);
  if (connect(fd, (struct sockaddr*)&to, sizeof to) == 0) return said(0);
  if (errno != EINPROGRESS) return said(-1);
  struct pollfd wait = {fd, POLLOUT, 0};
  if (poll(&wait, 1, 1000) <= 0) { puts("ETIMEDOUT"); return 0; }
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  errno = error;
  return said(error == 0 ? 0 : -1);
}

static int connect_to_6(const char* address, int port) {
  int fd = socket(AF_INET6, SOCK_STREAM, 0);
  if (fd < 0) return said(-1);
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  inet_pton(AF_INET6, address, &to.sin6_addr);
  return said(connect(fd, (struct sockaddr*)&to, sizeof to));
}

static int send_datagram(const char* address, int port) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) return said(-1);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  inet_pton(AF_INET, address, &to.sin_addr);
  return said(sendto(fd, "x", 1, 0, (struct sockaddr*)&to, sizeof to));
}

static int abstract_socket(const char* name) {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path + 1, name, sizeof to.sun_path - 2);
  return said(connect(fd, (struct sockaddr*)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))));
}

/* In a child, because a filter may kill it. */
static int in_child(void (*body)(void)) {
  pid_t child = fork();
  if (child == 0) { body(); _exit(0); }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) puts(strsignal(WTERMSIG(status)));
  else if (WEXITSTATUS(status) == 0) puts("ok");
  else puts(strerrorname_np(WEXITSTATUS(status)));
  return 0;
}
#if defined(__x86_64__)
static void int80(void) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11"); /* getpid of i386 */
  if (result < 0) _exit((int)-result);
}
static void x32(void) {
  if (syscall(0x40000000L | SYS_getpid) < 0) _exit(errno);
}
#else
static void int80(void) { _exit(ENOSYS); }
static void x32(void) { _exit(ENOSYS); }
#endif

static int tiocsti(void) {
  int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  int inner = -1;
  if (terminal >= 0 && unlockpt(terminal) == 0) inner = ioctl(terminal, TIOCGPTPEER, O_RDWR);
  return said(ioctl(inner >= 0 ? inner : 0, TIOCSTI, "x"));
}

static void* nothing(void* argument) { return argument; }
static int thread_works(void) {
  pthread_t thread;
  errno = pthread_create(&thread, NULL, nothing, NULL);
  if (errno != 0) return said(-1);
  pthread_join(thread, NULL);
  return said(0);
}

static int open_descriptors(void) {
  int count = 0;
  DIR* directory = opendir("/proc/self/fd");
  for (struct dirent* entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
    int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd > 2 && fd != dirfd(directory)) ++count;
  }
  printf("%d\n", count);
  return 0;
}

static int status_line(const char* key) {
  FILE* file = fopen("/proc/self/status", "r");
  char line[256];
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, key, strlen(key)) == 0) { printf("%s", line + strlen(key) + 1); return 0; }
  }
  puts("absent");
  return 0;
}

static int setuid_program(void) {
  pid_t child = fork();
  if (child == 0) {
    freopen("/dev/null", "w", stdout);
    freopen("/dev/null", "w", stderr);
    execl("/usr/bin/su", "su", "-c", "true", NULL);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return puts(geteuid() == 0 ? "root" : "same"), 0;
}

static int fork_bomb(void) {
  int children = 0;
  for (int i = 0; i < 1000; ++i) {
    pid_t child = fork();
    if (child == 0) { pause(); _exit(0); }
    if (child < 0) break;
    ++children;
  }
  puts(children < 999 ? strerrorname_np(errno) : "ok");
  fflush(stdout);
  kill(0, SIGKILL);
  return 0;
}

static int fill(const char* path) {
  int fd = open(path, O_WRONLY | O_CREAT, 0644);
  static char block[1 << 16];
  for (int i = 0; i < 1 << 14; ++i) {
    if (write(fd, block, sizeof block) < 0) { int error = errno; unlink(path); errno = error; return said(-1); }
  }
  return said(0);
}

static int fd_bomb(void) {
  for (int i = 0; i < 1 << 20; ++i) {
    if (dup(0) < 0) return said(-1);
  }
  return said(0);
}

static int memory_file_bomb(void) {
  int fd = memfd_create("bomb", 0);
  static char block[1 << 20];
  memset(block, 1, sizeof block);
  for (int i = 0; i < 4096; ++i) {
    if (write(fd, block, sizeof block) < 0) return said(-1);
  }
  return said(0);
}

static int memory_bomb(void) {
  for (;;) {
    char* block = malloc(1 << 20);
    if (block != NULL) memset(block, 1, 1 << 20);
  }
}

static int inode_bomb(const char* directory) {
  char path[256];
  for (int i = 0; i < 1 << 20; ++i) {
    snprintf(path, sizeof path, "%s/%d", directory, i);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd < 0) return said(-1);
    close(fd);
  }
  return said(0);
}

static int busy(void) {
  signal(SIGXCPU, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  for (;;) {
  }
}

static int flood(void) {
  static char block[1 << 16];
  for (;;) write(1, block, sizeof block);
}

/* Of all processes that there are to be seen, the signal reaches our own; a victim outside dies of it. */
static void seen(int number) { _exit(number == SIGWINCH ? 7 : 1); }
static int signal_all(void) {
  pid_t child = fork();
  if (child == 0) {
    signal(SIGWINCH, seen);
    pause();
    _exit(1);
  }
  usleep(50000);
  signal(SIGWINCH, SIG_IGN);
  if (kill(-1, SIGWINCH) != 0) return said(-1);
  int status = 0;
  waitpid(child, &status, 0);
  return puts(WIFEXITED(status) && WEXITSTATUS(status) == 7 ? "ok" : "lost"), 0;
}

static int count_processes(void) {
  int count = 0;
  DIR* directory = opendir("/proc");
  for (struct dirent* entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') ++count;
  }
  return puts(count <= 4 ? "few" : "many"), 0;
}

static int leave_file(const char* path) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
  return said(fd < 0 ? -1 : write(fd, "x", 1));
}

static int leave_queue(void) {
  return said(syscall(SYS_mq_open, "capstan-attack", O_CREAT | O_EXCL | O_RDWR, 0600, NULL));
}

static int daemonise(void) {
  if (fork() == 0) {
    setsid();
    if (fork() == 0) sleep(1000);
    _exit(0);
  }
  wait(NULL);
  puts("ok");
  return 0;
}

static int limit_rises(void) {
  struct rlimit limit = {1 << 20, 1 << 20};
  return said(setrlimit(RLIMIT_NOFILE, &limit));
}

static int realtime(void) {
  struct sched_param parameter = {.sched_priority = 10};
  return said(sched_setscheduler(0, SCHED_FIFO, &parameter));
}

static int deadline(void) {
  struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long runtime, deadline, period; } attributes = {
      .size = 48, .policy = 6, .runtime = 10000000, .deadline = 100000000, .period = 100000000};
  return said(syscall(SYS_sched_setattr, 0, &attributes, 0));
}

static int core_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_CORE, &limit);
  printf("%ld\n", (long)limit.rlim_max);
  return 0;
}

static int nice_raises(int by) {
  errno = 0;
  int result = nice(by);
  return said(result == -1 && errno != 0 ? -1 : 0);
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
#define CASE(name) if (strcmp(what, name) == 0)
  CASE("syscall") return raw(argc, argv);
  CASE("open") return open_file(argv[2], argv[3]);
  CASE("socket") return said(socket(atoi(argv[2]), atoi(argv[3]), atoi(argv[4])));
  CASE("connect4") return connect_to(argv[2], atoi(argv[3]));
  CASE("abstract") return abstract_socket(argv[2]);
  CASE("int80") return in_child(int80);
  CASE("x32") return in_child(x32);
  CASE("tiocsti") return tiocsti();
  CASE("ioctl0") return said(ioctl(0, strtoul(argv[2], NULL, 0), "x"));
  CASE("thread") return thread_works();
  CASE("fds") return open_descriptors();
  CASE("status") return status_line(argv[2]);
  CASE("kill") return said(kill(atoi(argv[2]), SIGKILL));
  CASE("symlink") { symlink(argv[2], "/tmp/link"); return open_file("/tmp/link", "r"); }
  CASE("hardlink") return said(link(argv[2], "/tmp/hard"));
  CASE("mknod") return said(mknod("/tmp/device", S_IFCHR | 0666, 0x0101));
  CASE("setuid_exec") return setuid_program();
  CASE("fork_bomb") return fork_bomb();
  CASE("fill") return fill(argv[2]);
  CASE("fd_bomb") return fd_bomb();
  CASE("memfd_bomb") return memory_file_bomb();
  CASE("daemon") return daemonise();
  CASE("rlimit") return limit_rises();
  CASE("fifo_sched") return realtime();
  CASE("deadline") return deadline();
  CASE("core") return core_limit();
  CASE("nice") return nice_raises(atoi(argv[2]));
  CASE("sysv") { int id = shmget(0x5ca1ab1e, 4096, IPC_CREAT | IPC_EXCL | 0666); return said(id); }
  CASE("connect6") return connect_to_6(argv[2], atoi(argv[3]));
  CASE("udp4") return send_datagram(argv[2], atoi(argv[3]));
  CASE("memory_bomb") return memory_bomb();
  CASE("inode_bomb") return inode_bomb(argv[2]);
  CASE("busy") return busy();
  CASE("flood") return flood();
  CASE("signal_all") return signal_all();
  CASE("processes") return count_processes();
  CASE("leave") return leave_file(argv[2]);
  CASE("queue") return leave_queue();
  CASE("env") return puts(getenv(argv[2]) == NULL ? "absent" : "present"), 0;
  CASE("exit") return atoi(argv[2]);
  fprintf(stderr, "attack: unknown case '%s'\n", what);
  return 2;
}
