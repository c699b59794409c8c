# The Python of a code context: runs cells one after the other in one namespace and says what came of them.
#
# Cells arrive on standard input, a JSON object a line: {"code", "env_vars"}; one without code sets variables for all that
# follow. Events leave on what was standard output, a
# JSON object a line: stdout, stderr, result, error, number_of_executions, end_of_execution. Descriptors 1 and 2 are
# pipes of this program's own, so that what subprocesses print is an event, too. SIGINT interrupts the cell that runs.
import ast, base64, builtins, codecs, inspect, io, json, linecache, os, queue, re, select, signal, subprocess, sys
import threading, traceback, types

events = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
requests = os.fdopen(os.dup(0), "rb")
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
pipes = {}
for number, name in ((1, "stdout"), (2, "stderr")):
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.dup2(write_end, number)
    os.close(write_end)
    pipes[read_end] = (name, codecs.getincrementaldecoder("utf-8")("replace"))
sys.stdin = open(0)
sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=True)

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


def display(*values):
    pump()
    for value in values:
        emit(type="result", is_main_result=False, **describe(value))


def shell(command):
    subprocess.run(command, shell=True)


def show_figures():
    plt = sys.modules.get("matplotlib.pyplot")
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
        sys.stdout.flush()
        pump()
        emit(type="result", is_main_result=True, **describe(value))


def report(error, name):
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    pump()
    emit(type="error", name=type(error).__name__, value=str(error), traceback=text)


def execute(request, count):
    global running
    name = "cell %d" % count
    before = dict(os.environ)
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
    pump()
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
waiting = queue.SimpleQueue()
threading.Thread(target=pump_always, daemon=True).start()
threading.Thread(target=read_requests, args=(waiting,), daemon=True).start()
count = 0
while True:
    request = waiting.get()
    if "code" in request:
        count += 1
        execute(request, count)
    else:
        os.environ.update(request["env_vars"])
