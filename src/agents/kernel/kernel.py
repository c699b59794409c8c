# The Python that keeps what its code defines: runs cells one after the other in one namespace and says what came of them.
#
# Cells arrive on standard input, a JSON object a line: {"code", "env_vars"}; one without code sets variables for all that
# follow. Events leave on what was standard output, a JSON object a line: stdout, stderr, result, error, number_of_executions,
# end_of_execution. Descriptors 1 and 2 are pipes of this program's own, so that what subprocesses print is an event, too.
# SIGINT interrupts the cell that runs.
#
# Started with the argument "plain", all that a cell writes, its value's repr and its traceback too, is one text in the order of
# writing: a file, of which one stdout event at the cell's end carries the beginning and a `written` event the size. Whoever
# must kill this program finds the text in the file. One request at a time; no thread, so that cells may fork.
import ast, base64, builtins, codecs, inspect, io, json, linecache, os, queue, re, select, signal, subprocess, sys
import threading, traceback, types

PLAIN_FILE, PLAIN_BYTES_MAX, VALUE_CHARS_MAX = "/tmp/.python-output", 1 << 20, 1000
plain = sys.argv[1:] == ["plain"]
sys.argv = [""]
events = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
requests = os.fdopen(os.dup(0), "rb")
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
pipes = {}
for number, name in () if plain else ((1, "stdout"), (2, "stderr")):
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.dup2(write_end, number)
    os.close(write_end)
    pipes[read_end] = (name, codecs.getincrementaldecoder("utf-8")("replace"))


def text_stream(number):
    return io.TextIOWrapper(open(number, "wb", 0 if plain else -1, closefd=False), "utf-8", "backslashreplace",
                            line_buffering=not plain, write_through=plain)


sys.stdin, sys.stdout, sys.stderr = open(0), text_stream(1), text_stream(2)

event_lock, pump_lock = threading.Lock(), threading.Lock()


def emit(**event):
    with event_lock:
        events.write(json.dumps(event) + "\n")
        events.flush()


def pump():
    with pump_lock:
        for end, (name, decoder) in pipes.items():
            while True:
                try:
                    piece = os.read(end, 65536)
                except BlockingIOError:
                    break
                text = decoder.decode(piece)
                if text:
                    emit(type=name, text=text)


def pump_always():
    while True:
        select.select(list(pipes), [], [])
        pump()


def begin_file():
    file = os.open(PLAIN_FILE, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    return file


def end_file(file):
    emit(type="stdout", text=os.pread(file, PLAIN_BYTES_MAX, 0).decode("utf-8", "replace"))
    emit(type="written", bytes=os.fstat(file).st_size)
    os.close(file)


FORMATS = ("html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "json", "javascript")
MIME = {"text/plain": "text", "text/html": "html", "text/markdown": "markdown", "image/svg+xml": "svg",
        "image/png": "png", "image/jpeg": "jpeg", "application/pdf": "pdf", "text/latex": "latex",
        "application/json": "json", "application/javascript": "javascript"}


def as_text(value):
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def describe(value):
    out = {"text": value if isinstance(value, str) else repr(value)}
    bundle = getattr(value, "_repr_mimebundle_", None)
    if callable(bundle) and not isinstance(value, type):
        data = bundle(include=None, exclude=None)
        for mime, content in (data[0] if isinstance(data, tuple) else data).items():
            out[MIME.get(mime, mime)] = as_text(content)
    for name in FORMATS:
        method = getattr(value, "_repr_" + name + "_", None)
        if name in out or not callable(method) or isinstance(value, type):
            continue
        content = method()
        if isinstance(content, tuple):
            content = content[0]
        if content is not None:
            out[name] = as_text(content)
    return out


def show(value, main=False):
    if plain:
        return print(repr(value))
    sys.stdout.flush()
    pump()
    emit(type="result", is_main_result=main, **describe(value))


def display(*values):
    for value in values:
        show(value)


def shell(command):
    subprocess.run(command, shell=True)


def show_figures():
    plt = None if plain else sys.modules.get("matplotlib.pyplot")
    for number in plt.get_fignums() if plt else ():
        image = io.BytesIO()
        plt.figure(number).savefig(image, format="png")
        emit(type="result", is_main_result=False, text="Figure %d" % number, png=as_text(image.getvalue()))
    if plt:
        plt.close("all")


module = types.ModuleType("__main__")  # so that what a cell defines can be pickled by its name
sys.modules["__main__"] = module
space = module.__dict__
space["__builtins__"] = builtins
builtins.display = display
builtins.__capstan_shell__ = shell
running, loop = False, None


def parse(code, name):
    try:
        return ast.parse(code, name)
    except SyntaxError:
        # "!command" lines, as notebooks know them.
        shelled = re.sub(r"^(\s*)!(.+)$", lambda m: "%s__capstan_shell__(%r)" % m.groups(), code, flags=re.M)
        if shelled == code:
            raise
        return ast.parse(shelled, name)


def run_code(tree, name, mode):
    global loop
    code = compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    value = eval(code, space)
    if code.co_flags & inspect.CO_COROUTINE:
        import asyncio
        loop = loop or asyncio.new_event_loop()
        value = loop.run_until_complete(value)
    return value


def run_cell(code, name):
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    tree = parse(code, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    run_code(tree, name, "exec")
    value = run_code(last, name, "eval") if last else None
    if value is not None:
        builtins._ = value
        show(value, main=True)


def report_plainly(error, text):
    if not isinstance(error, SystemExit):
        print(text, end="", file=sys.stderr)
    elif error.code in (None, 0):
        return
    elif not isinstance(error.code, int):
        print(error.code)
    emit(type="error", name=type(error).__name__, value=str(error)[:VALUE_CHARS_MAX])


def report(error, name):
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    if plain:
        return report_plainly(error, text)
    pump()
    emit(type="error", name=type(error).__name__, value=str(error), traceback=text)


def execute(request, count):
    global running
    name = "<call %d>" % count if plain else "cell %d" % count
    before = dict(os.environ)
    file = begin_file() if plain else None
    os.environ.update(request.get("env_vars") or {})
    try:
        running = True
        run_cell(request["code"], name)
        show_figures()
    except BaseException as error:
        running = False
        report(error, name)
    finally:
        running = False
        for variable in request.get("env_vars") or {}:
            if variable in before:
                os.environ[variable] = before[variable]
            else:
                os.environ.pop(variable, None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    end_file(file) if plain else pump()
    emit(type="number_of_executions", execution_count=count)
    emit(type="end_of_execution")


def interrupt(*_):
    if running:
        raise KeyboardInterrupt


def read_requests(into):
    for line in requests:
        into.put(json.loads(line))
    os._exit(0)


signal.signal(signal.SIGINT, interrupt)
if plain:
    sys.path.insert(0, "/work")
    arriving = map(json.loads, requests)
else:
    waiting = queue.SimpleQueue()
    threading.Thread(target=pump_always, daemon=True).start()
    threading.Thread(target=read_requests, args=(waiting,), daemon=True).start()
    arriving = iter(waiting.get, None)
count = 0
for request in arriving:
    if "code" in request:
        count += 1
        execute(request, count)
    else:
        os.environ.update(request["env_vars"])
os._exit(0)
