#!/bin/sh
# Goal: a sandbox that the scheduler placed is used the same way wherever it runs: by name and id, commands with streams both
# ways, code, files, connect, MCP, lists, end; its usage is recorded; a host that cannot be reached is told by name.
# Method: `capstan up`, and a second worker with its own data directory under another host name. Skipped where the host cannot
# enforce sandboxes.
. "$(dirname "$0")/lib.sh"
"$capstan" sandbox check >/dev/null 2>&1 || skip "this host cannot enforce sandboxes (capstan sandbox check)"
unshare --uts true 2>/dev/null || skip "this host cannot have a second name (unshare --uts)"
start_capstan --bare
one=$(hostname)
far=$scratch/far
far_pid=

# The second host: it knows where the controller is, and has the workers' token.
start_far() {
  mkdir -p "$far/log" && chmod 700 "$far"
  cp "$CAPSTAN_DATA_DIR/controller.json" "$CAPSTAN_DATA_DIR/worker.token" "$far/"
  unshare --uts sh -c "hostname two; exec \"$capstan\" worker --data-dir \"$far\"" >>"$far/log/worker.log" 2>&1 &
  far_pid=$!
}
end_far() { [ -z "$far_pid" ] || { kill "$far_pid" 2>/dev/null; wait "$far_pid"; } || true; far_pid=; }
trap 'code=$?; end_far; (exit $code); finish' EXIT
start_far
both() { [ "$("$capstan" hosts | grep -cE "^($one|two) ")" = 2 ]; }
wait_until 30 "both hosts are there" both

apply() { printf 'kind: sandbox\nname: %s\nresources: {cpus: 0.2, memory: 128MiB}\nenv: {WHERE: %s}\n' "$1" "$2" >"$scratch/spec.yaml"; "$capstan" apply -f "$scratch/spec.yaml" >/dev/null; }
inside() { name=$1; shift; "$capstan" session exec "$name" -- "$@"; }
session_of() { "$capstan" -o json get "$1" | sed -n 's/.*"session": "\(.*\)".*/\1/p' | head -n 1; }
"$capstan" hosts cordon two >/dev/null
apply near here
wait_until 30 "the one here runs" state_is near running
"$capstan" hosts uncordon two >/dev/null; "$capstan" hosts cordon "$one" >/dev/null
apply distant there
wait_until 30 "the other one runs" state_is distant running
"$capstan" hosts uncordon "$one" >/dev/null
expect "where it runs" "on two" "$("$capstan" explain distant)"

# Both are used through one front.
expect "here" "^here near$" "$(inside near 'echo $WHERE $CAPSTAN_JOB')"
expect "there" "^there distant$" "$(inside distant 'echo $WHERE $CAPSTAN_JOB')"
id=$(session_of distant)
inside distant 'echo kept > file'; expect "by id" "^kept$" "$(inside "$id" 'cat file')"
code=0
printf 'line\n' | "$capstan" session exec -i distant -- /bin/sh -c 'read x; echo "got $x"; exit 5' >"$scratch/out" || code=$?
[ "$code" = 5 ] || fail "exec -i ended with $code"
expect "exec -i" "got line" "$(cat "$scratch/out")"
[ "$(inside distant 'head -c 20000000 /dev/zero' | wc -c)" = 20000000 ] || fail "a long output is not whole"
"$capstan" session code distant 'x = 20' && expect "code" "^41$" "$("$capstan" session code distant '2 * x + 1')"
head -c 3000000 /dev/urandom >"$scratch/in"
"$capstan" session cp "$scratch/in" distant:in >/dev/null && "$capstan" session cp distant:in "$scratch/back"
cmp "$scratch/in" "$scratch/back" || fail "a file changed on its way in and out"
expect "connect" "\"sandboxID\":\"$id\"" "$(curl -sf -X POST -H 'content-type: application/json' -d '{"timeout": 60}' "$base/sandboxes/distant/connect")"
mcp() { curl -s -D "$scratch/head" "$@" -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' "$base/mcp?sandbox=distant"; }
expect "MCP" '"serverInfo"' "$(mcp -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}')"
mcp_session=$(sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: *\([0-9a-zA-Z]*\).*/\1/p' "$scratch/head")
expect "an MCP tool" "kept" "$(mcp -H "mcp-session-id: $mcp_session" -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_command","arguments":{"command":"cat file"}}}')"
"$capstan" session pause distant >/dev/null
expect "paused" "$id +base +paused" "$("$capstan" session list)"
"$capstan" session resume distant >/dev/null

# One list, in pages of one, too.
own=$("$capstan" session create)
list=$("$capstan" session list)
for name in near distant; do expect "list" " $name\$" "$list"; done
expect "list" "^$own " "$list"
page() { curl -sf -D "$scratch/head" "$base/v2/sandboxes?limit=1&nextToken=$1" >"$scratch/page"; sed -n 's/\r$//; s/^[Xx]-[Nn]ext-[Tt]oken: *//p' "$scratch/head"; }
next=$(page ""); seen=$(cat "$scratch/page")
next=$(page "$next"); seen=$seen$(cat "$scratch/page")
next=$(page "$next"); seen=$seen$(cat "$scratch/page")
[ -z "$next" ] || fail "three sandboxes are not three pages of one: $next"
for wanted in "$own" "$(session_of near)" "$id"; do expect "pages" "\"sandboxID\":\"$wanted\"" "$seen"; done
"$capstan" session kill "$own" >/dev/null

# What only the front's own host can have is refused by name.
code=0; "$capstan" session snapshot distant --name s 2>"$scratch/err" || code=$?
expect "a snapshot elsewhere" "runs on host two" "$(cat "$scratch/err")"
apply huge nowhere; printf 'kind: sandbox\nname: waits\nresources: {cpus: 0.2, memory: 128MiB}\nplacement: {host_class: none-such}\n' >"$scratch/spec.yaml"
"$capstan" apply -f "$scratch/spec.yaml" >/dev/null
expect "one that waits" "does not run now: it is pending" "$(inside waits true 2>&1 || true)"
"$capstan" cancel huge waits >/dev/null

# Usage of both hosts reaches the store once.
inside distant 'head -c 100000000 /dev/zero | md5sum' >/dev/null
"$capstan" session kill distant >/dev/null
wait_until 30 "a client ends it" state_is distant succeeded
usage_there() { [ "$(sqlite3 "$CAPSTAN_DATA_DIR/store.sqlite" "select count(*) > 0, sum(runs), sum(cpu_us) > 50000 from compute_usage where name = 'default/distant'")" = "1|1|1" ]; }
wait_until 30 "its usage is recorded once" usage_there

# A host that cannot be reached is told by name, never as if there were no such sandbox; the list says what is not in it.
"$capstan" hosts cordon "$one" >/dev/null
apply again there
wait_until 30 "it runs" state_is again running
kill -9 "$far_pid"; wait "$far_pid" 2>/dev/null || true; far_pid=
expect "unreachable" "worker of host two, at http://.*does not answer" "$(inside again true 2>&1 || true)"
"$capstan" session list >"$scratch/out" 2>"$scratch/err" || fail "the list of what is here needs no other host"
expect "the list" " near\$" "$(cat "$scratch/out")"
expect "what is missing" "host two: " "$(cat "$scratch/err")"
start_far
usable() { [ "$(inside again 'echo $WHERE')" = there ]; }
wait_until 30 "the next worker of that host is the way" usable
echo "placed hosts: all passed"
