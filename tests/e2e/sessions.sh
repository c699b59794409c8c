#!/bin/sh
# Goal: sandbox sessions work for those who use them: E2B's unmodified clients, an MCP client, the command line; keys tell
# tenants apart, usage is recorded. Method: tests/clients/*_test.mjs against `capstan up`. Skipped where the host cannot
# enforce sandboxes.
. "$(dirname "$0")/lib.sh"
clients=$(cd "$(dirname "$0")/../clients" && pwd)
"$capstan" sandbox check >/dev/null 2>&1 || skip "this host cannot enforce sandboxes (capstan sandbox check)"
code=0
sh "$clients/install.sh" || code=$?
[ "$code" -ne 77 ] || skip "the clients cannot be installed"
[ "$code" -eq 0 ] || fail "the installation of the clients ended with $code"
node=$clients/node_modules/node/bin/node

start_capstan --bare
export E2B_API_URL=$base E2B_SANDBOX_URL=$base E2B_API_KEY=e2b_0000000000000000000000000000000000000000
export WITH_NETWORK_TEMPLATE=1
mkdir -p "$CAPSTAN_DATA_DIR/sessions/templates"
printf '{"network": {"allow": ["127.0.0.1:%s"], "on_request": ["*.example.com"]}}' "${base##*:}" >"$CAPSTAN_DATA_DIR/sessions/templates/net.json"
for test in sandboxes code_interpreter mcp; do
  "$node" --test --test-concurrency=1 "$clients/${test}_test.mjs" >"$scratch/$test.log" 2>&1 ||
    { cat "$scratch/$test.log" >&2; fail "$test"; }
done

# A wrong key is refused, a right one has sandboxes of its own.
status() { curl -s -o "$scratch/body" -w '%{http_code}' -H "X-API-Key: $1" "$base/v2/sandboxes"; }
[ "$(status sk-capstan-wrong)" = 401 ] || fail "a wrong key was not refused"

# The command line.
id=$("$capstan" session create --timeout 600 --env GREETING=hello)
expect "list" "$id +base +running" "$("$capstan" session list)"
expect "exec" "^hello /home/user$" "$("$capstan" session exec "$id" -- 'echo $GREETING $PWD')"
code=0
printf 'line\n' | "$capstan" session exec -i "$id" -- /bin/sh -c 'read x; echo "got $x"; exit 5' >"$scratch/out" || code=$?
[ "$code" = 5 ] || fail "exec -i ended with $code"
expect "exec -i" "got line" "$(cat "$scratch/out")"
# A terminal: it has the window's size, hears of its change, and ends with its input.
expect "exec -t" "24 80" "$(printf 'stty size\n' | timeout 60 "$capstan" session exec -t "$id" -- bash)"
python3 - "$capstan" "$id" <<'END' || fail "a terminal did not hear of its new size"
import fcntl, os, pty, select, struct, sys, termios, time
child, fd = pty.fork()
if child == 0:
    os.execv(sys.argv[1], [sys.argv[1], "session", "exec", "-t", sys.argv[2], "--", "bash"])
seen, last, end = b"", 0, time.time() + 60
while b"33 101" not in seen and time.time() < end:
    if b"$ " in seen and time.time() - last > 0.5:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        os.write(fd, b"stty size\n")
        last = time.time()
    if select.select([fd], [], [], 0.1)[0]:
        seen += os.read(fd, 4096)
os.write(fd, b"\x04")
sys.exit(b"33 101" not in seen)
END
"$capstan" session code "$id" 'x = 20' && expect "code" "^41$" "$("$capstan" session code "$id" '2 * x + 1')"
head -c 100000 /dev/urandom >"$scratch/in"
"$capstan" session cp "$scratch/in" "$id:copied" >/dev/null && "$capstan" session cp "$id:copied" "$scratch/back"
cmp "$scratch/in" "$scratch/back" || fail "a file changed on its way in and out"
"$capstan" session pause "$id" >/dev/null
expect "paused" "$id +base +paused" "$("$capstan" session list)"
code=0; "$capstan" session exec "$id" -- true 2>"$scratch/err" || code=$?
expect "exec while paused" "paused" "$(cat "$scratch/err")"
"$capstan" session resume "$id" >/dev/null
"$capstan" session snapshot "$id" --name before >/dev/null
copy=$("$capstan" session create --template before)
expect "from a snapshot" "copied" "$("$capstan" session exec "$copy" -- ls)"
"$capstan" session pause "$copy" >/dev/null
"$capstan" session kill "$id" "$copy" >/dev/null
code=0; "$capstan" session exec "$id" -- true 2>/dev/null || code=$?
[ "$code" = 3 ] || fail "exec in a sandbox that ended gave $code, not 3"

# The network: only what is listed, and only through the proxy (here, to this server itself).
net=$("$capstan" session create --template net)
through='curl -s --noproxy "" -x $http_proxy'
expect "a listed host" "^ok" "$("$capstan" session exec "$net" -- "$through $base/healthz")"
expect "a host that is not" "not among the hosts" "$("$capstan" session exec "$net" -- "$through http://example.org/")"
expect "nothing around it" "7" "$("$capstan" session exec "$net" -- "curl -s --noproxy '*' $base/healthz; echo \$?")"
expect "more than is permitted" "not allowed here" "$("$capstan" session create --template net --allow example.org 2>&1)"
"$capstan" session kill "$net" >/dev/null

# Sandboxes made ahead.
printf '{"warm": 2}' >"$CAPSTAN_DATA_DIR/sessions/templates/hot.json"
two_wait() { "$capstan" session templates | grep -qE '^hot +- +- +2 +-$'; }
wait_until 30 "two sandboxes are ready" two_wait
hot=$("$capstan" session create --template hot)
expect "a warm one" "^warm$" "$("$capstan" session exec "$hot" -- 'echo warm')"
wait_until 30 "two are ready again" two_wait
"$capstan" session kill "$hot" >/dev/null

# A template's packages: a wheel made here, installed at the first creation; a list that cannot be installed says so.
if python3 -c 'import pip' 2>/dev/null || ls /usr/share/python-wheels/pip-*.whl >/dev/null 2>&1; then
  mkdir -p "$scratch/wheels"
  python3 - "$scratch/wheels/greet-1.0-py3-none-any.whl" <<'END'
import sys, zipfile
files = {"greet.py": "def hello():\n    print('greetings')\n",
         "greet-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
         "greet-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
         "greet-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greet:hello\n"}
files["greet-1.0.dist-info/RECORD"] = "".join(name + ",,\n" for name in [*files, "greet-1.0.dist-info/RECORD"])
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)
END
  for version in 1.0 2.0; do
    printf '{"packages": {"python": ["greet==%s"], "wheels": "%s"}}' "$version" "$scratch/wheels" \
      >"$CAPSTAN_DATA_DIR/sessions/templates/greet-$version.json"
  done
  expect "packages before" "^greet-1.0 .* absent" "$("$capstan" session templates)"
  greet=$("$capstan" session create --template greet-1.0)
  expect "a package's program" "^greetings$" "$("$capstan" session exec "$greet" -- greet)"
  expect "a package in code" "^greetings$" "$("$capstan" session code "$greet" 'import greet; greet.hello()')"
  expect "a package that is not there" "No matching distribution found" "$("$capstan" session create --template greet-2.0 2>&1)"
  expect "packages ready" "^greet-1.0 .* ready" "$("$capstan" session templates)"
  expect "packages failed" "^greet-2.0 .* failed: .*No matching" "$("$capstan" session templates)"
  "$capstan" session kill "$greet" >/dev/null
fi

# What they used reaches the store, by project.
usage_shows() { "$capstan" usage --by project | grep -qE "default/default +sandbox +[1-9]"; }
wait_until 30 "usage shows sandboxes" usage_shows

# Another project's key sees and opens nothing of these.
"$capstan" org add acme >/dev/null; "$capstan" project add acme/web >/dev/null
key=$("$capstan" key add ci --project acme/web | grep -o 'sk-capstan-[A-Za-z0-9_-]*' | head -n 1)
mine=$("$capstan" session create)
[ "$(status "$key")" = 200 ] && [ "$(cat "$scratch/body")" = "[]" ] || fail "a key of another project sees sandboxes: $(cat "$scratch/body")"
code=$(curl -s -o /dev/null -w '%{http_code}' -X DELETE -H "X-API-Key: $key" "$base/sandboxes/$mine")
[ "$code" = 404 ] || fail "a key of another project may end a sandbox: $code"
echo "sessions: all passed"
