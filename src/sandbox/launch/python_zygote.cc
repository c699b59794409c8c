// The library that a warm Python interpreter loads (launch/zygotes.h): it serves requests for runners by
// forking the interpreter into the pid namespace of a sandbox. What the program (zygote_program.h)
// defines is called in the child: prepare() as soon as it is confined, run() when its command has come.
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "sandbox/launch/kernel.h"
#include "sandbox/launch/python_api.h"
#include "sandbox/launch/runner.h"
#include "sandbox/wire.h"

namespace {

using namespace capstan::sandbox;

PyObject *prepare = nullptr, *run = nullptr;  // of the program

PyObject* bytes_of(const std::string& text) {
  return PyBytes_FromStringAndSize(text.data(), static_cast<std::ptrdiff_t>(text.size()));
}

PyObject* list_of(const std::vector<std::string>& texts) {
  PyObject* list = PyList_New(0);
  for (const auto& text : texts) {
    PyObject* item = bytes_of(text);
    PyList_Append(list, item);
    Py_DecRef(item);
  }
  return list;
}

// What standard input, output and error are, a letter each: the null device, a pipe or socket, something
// else.
std::string kinds_of_stdio() {
  std::string kinds;
  for (int i = 0; i < 3; ++i) {
    struct stat status {};
    ::fstat(i, &status);
    const bool null = S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
    const bool pipe = S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode);
    kinds += null ? 'n' : pipe ? 'p' : 'o';
  }
  return kinds;
}

// Takes what is free between the interpreter's objects, so that what a child allocates lies close together at
// the end of the heap, in few pages.
void fill_heap() {
  constexpr std::size_t kSizeMax = 64 << 10, kSmall = 1024, kStep = 16;
  ::mallopt(M_TOP_PAD, 4 * kSizeMax);
  void* end = std::malloc(kSizeMax);  // of what is not mapped alone
  for (std::size_t size = kSizeMax; size >= kStep; size -= size > kSmall ? kSmall : kStep) {
    void* block = std::malloc(size);
    while (block != nullptr && block < end) block = std::malloc(size);
    std::free(block);
  }
  std::free(end);
}

void prepare_interpreter() {
  PyOS_AfterFork_Child();
  if (PyObject_CallFunctionObjArgs(prepare, nullptr) == nullptr) PyErr_Print();
}

int run_command(const CommandSpec& command) {
  PyObject* status = PyObject_CallFunctionObjArgs(run, bytes_of(command.code), list_of(command.argv),
                                                  list_of(command.env), bytes_of(kinds_of_stdio()), nullptr);
  if (status != nullptr) return static_cast<int>(PyLong_AsLong(status));
  PyErr_Print();
  return 1;
}

struct Server {
  int landlock_abi = 0;
  std::vector<sock_filter> filters[2];
  Fd own_pids;                   // our own pid namespace, for our own children
  std::uintptr_t number_at = 0;  // where the C library keeps the number of this thread

  bool greet(int socket) {
    Message message;
    if (receive_message(socket, message) != 1) return false;
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kHello) return false;
    landlock_abi = static_cast<int>(in.u32());
    for (auto& filter : filters) {
      const std::string bytes = in.text();
      filter.resize(bytes.size() / sizeof(sock_filter));
      std::memcpy(filter.data(), bytes.data(), filter.size() * sizeof(sock_filter));
    }
    own_pids.reset(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
    return in.good() && own_pids && ::prctl(PR_GET_TID_ADDRESS, &number_at, 0, 0, 0) == 0;
  }

  // Descriptors: as Zygotes::Birth has them.
  void answer(int socket, Message& message) {
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kSpawn || message.fds.size() < 4) return;
    const SandboxSpec spec = in.sandbox();
    Runner runner{.socket = message.fds[0].get(),
                  .first = message.fds[1].get(),
                  .gate = message.fds[2].get(),
                  .filter = filters[static_cast<std::size_t>(spec.network)],
                  .landlock_abi = landlock_abi,
                  .prepare = prepare_interpreter,
                  .run_code = run_command};
    for (std::size_t i = 4; i < message.fds.size(); ++i) runner.cgroups.push_back(message.fds[i].get());
    int pidfd = -1;
    pid_t pid = -1;
    if (::setns(runner.first, CLONE_NEWPID) == 0) {
      pid = kernel::clone3(CLONE_PARENT, message.fds[3].get(), &pidfd, number_at);
      if (pid == 0) become_runner(runner, spec);
    }
    const int error = errno;
    const Fd owned(pidfd);
    ::setns(own_pids.get(), CLONE_NEWPID);
    if (pid > 0)
      send_message(socket, Packer(MessageKind::kReady).u32(static_cast<std::uint32_t>(pid)).bytes(), {pidfd});
    else
      send_message(socket, Packer(MessageKind::kRefused).u32(static_cast<std::uint32_t>(error)).bytes());
  }
};

}  // namespace

// Called as the initialisation of a module, of which it makes nothing: ends the process when the launcher is
// gone.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit_capstan_python_zygote() {
  PyObject* program = PyImport_AddModule("__main__");
  prepare = PyObject_GetAttrString(program, "prepare");
  run = PyObject_GetAttrString(program, "run");
  constexpr int kSocket = 3;
  fill_heap();
  Server server;
  if (prepare == nullptr || run == nullptr || !server.greet(kSocket)) ::_exit(1);
  for (Message message; receive_message(kSocket, message) == 1;) {
    server.answer(kSocket, message);
    message.fds.clear();
  }
  ::_exit(0);
}
