// The program of a warm Python interpreter (launch/zygotes.h), as source: `python3 -c PROGRAM LIBRARY`.
//
// It ends by loading the library (launch/python_zygote.cc), which forks and calls prepare() and run() in the
// children. A program must run, print and end as under `python3 -c` (python_lane_test.cc compares), but the
// interpreter is not taken down: leave() does what of that can be seen.
//
// Cost: a child pays for every page that it writes, if only a reference count, and so for every object that it
// uses. What can be made before the fork is made there, streams for the usual kinds of standard input and
// output, too; what children do is done a few times before the first is born, which fills the interpreter's
// caches, and once more in the child while it waits for its command.
#pragma once

namespace capstan::sandbox {

inline constexpr const char* kZygoteProgram = R"PY(
import sys, os, posix, signal, gc, builtins, types, traceback, atexit, json, re, math, io, _imp, _random
import collections, itertools, functools, datetime, time, string, decimal

# What modules want done after a fork is for the forks that a command makes, not for its own birth: there were
# no other threads to forget, and prepare() renews the seed.
born = False
register = os.register_at_fork
os.register_at_fork = lambda *, after_in_child: register(after_in_child=lambda: born and after_in_child())
import threading, random, fractions, statistics
os.register_at_fork = register

environ, putenv, getcwd, modules = os.environ._data, posix.putenv, os.getcwd, sys.modules

def open_stream(number):
    mode = 'r' if number == 0 else 'w'
    buffering = 1 if number == 2 or number == 1 and os.isatty(1) else -1
    errors = 'backslashreplace' if number == 2 else 'surrogateescape'
    stream = open(number, mode, encoding='utf-8', errors=errors, closefd=False, buffering=buffering)
    stream.buffer.raw.name = ('<stdin>', '<stdout>', '<stderr>')[number]
    stream.mode = mode
    return stream

# All that a stream keeps of its descriptor is whether it is a terminal and whether it has a position.
def open_over(descriptor):
    streams = []
    for number in range(3):
        kept = os.dup(number)
        os.dup2(descriptor, number)
        streams.append(open_stream(number))
        os.dup2(kept, number)
        os.close(kept)
    return streams

def enter(argv, env, kinds):
    for entry in env:
        name, _, value = entry.partition(b'=')
        environ[name] = value
        putenv(name, value)
    for each in argv:
        sys.argv.append(str(each, 'utf-8', 'surrogateescape'))
    sys.path.insert(0, getcwd())
    ready = streams.get(kinds[0])
    sys.stdin = sys.__stdin__ = ready[0] if ready else open_stream(0)
    ready = streams.get(kinds[1])
    sys.stdout = sys.__stdout__ = ready[1] if ready else open_stream(1)
    ready = streams.get(kinds[2])
    sys.stderr = sys.__stderr__ = ready[2] if ready else open_stream(2)

def report(error):
    error.__traceback__ = error.__traceback__.tb_next  # without execute()
    sys.excepthook(type(error), error, error.__traceback__)

# The exit code; -2: interrupted.
def execute(code, space):
    try:
        exec(compile(code, '<code>', 'exec'), space)
    except SystemExit as exit:
        if exit.code is None: return 0
        if isinstance(exit.code, int): return exit.code & 255
        print(exit.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        report(error)
        return -2
    except BaseException as error:
        report(error)
        return 1
    return 0

def flush(stream):
    if stream is None or getattr(stream, 'closed', False): return True
    try:
        stream.flush()
    except BaseException as error:
        if stream is not getattr(sys, 'stderr', None):
            print('Exception ignored in:', stream, file=sys.stderr)
            traceback.print_exception(type(error), error, None)
        return False
    return True

def flush_both():
    good = flush(getattr(sys, 'stdout', None))
    return flush(getattr(sys, 'stderr', None)) and good

# As the end of an interpreter: threads, atexit, streams, then modules and what only they hold, so that files
# which nobody closed are written.
def leave(status):
    global main
    try:
        threading._shutdown()
    except BaseException:
        print('Exception ignored in:', threading, file=sys.stderr)
        traceback.print_exc()
    atexit._run_exitfuncs()
    good = flush_both()
    modules.pop('__main__', None)
    main = None
    if len(modules) >= modules_before:
        for name in list(modules)[modules_before - 1:]: del modules[name]
    gc.collect()
    if not (good and flush_both()): return 120
    if status == -2:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status

def run(code, argv, env, kinds):
    enter(argv, env, kinds)
    gc.enable()
    return leave(execute(code, main.__dict__))

def rehearse():
    enter([], [b'PATH=/usr/bin'], b'nnn')
    execute(b'pass', {})
    flush_both()
    del sys.argv[1:], sys.path[0]
    environ.clear()

def prepare():
    global born, main
    born = True
    # Not before the fork: the collector would not look into it.
    main = modules['__main__'] = types.ModuleType('__main__')
    main.__builtins__ = builtins
    _random.Random.seed(random._inst)
    threading._main_thread._native_id = threading.get_native_id()
    rehearse()

os.environb.clear()
sys.argv[:], library = ['-c'], sys.argv[1]
null, pipe = os.open('/dev/null', os.O_RDWR), os.pipe()
streams = {ord('n'): open_over(null), ord('p'): open_over(pipe[1])}
for each in null, *pipe: os.close(each)
modules_before = len(modules)
for _ in range(20): rehearse()
gc.collect()
gc.disable()
gc.freeze()
_imp.create_dynamic(types.SimpleNamespace(name='capstan_python_zygote', origin=library))
)PY";

}  // namespace capstan::sandbox
