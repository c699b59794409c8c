#!/bin/sh
# Goal: a sandbox in a YAML document is a workload like any other: placed, shown, used by its name and by its session's id,
# cancelled, ended by its time or by a client, told of when lost, adopted after kill -9 of controller and worker, counted once.
# Method: `capstan up` and the command line. Skipped where the host cannot enforce sandboxes.
. "$(dirname "$0")/lib.sh"
"$capstan" sandbox check >/dev/null 2>&1 || skip "this host cannot enforce sandboxes (capstan sandbox check)"
start_capstan --bare

spec() { printf 'kind: sandbox\nname: %s\nresources: {cpus: 0.2, memory: 128MiB}\n' "$1"; shift; printf '%s\n' "$@"; }
apply() { spec "$@" >"$scratch/spec.yaml"; "$capstan" apply -f "$scratch/spec.yaml"; }
inside() { name=$1; shift; "$capstan" session exec "$name" -- "$@"; }
reason_of() { "$capstan" -o json get "$1" | sed -n 's/.*"reason": "\(.*\)".*/\1/p'; }
session_of() { "$capstan" -o json get "$1" | sed -n 's/.*"session": "\(.*\)".*/\1/p' | head -n 1; }

# Applied, seen, used.
apply workbench 'env: {GREETING: hello}' 'labels: {team: a}' >/dev/null
wait_until 30 "the sandbox runs" state_is workbench running
id=$(session_of workbench)
[ -n "$id" ] || fail "the sandbox has no session"
expect "get" "workbench +sandbox +running +1/1" "$("$capstan" get)"
expect "list of a kind" "workbench" "$("$capstan" get --kind sandbox)"
expect "explain" "sandbox workbench is running" "$("$capstan" explain workbench)"
expect "explain" "1 ranks on" "$("$capstan" explain workbench)"
expect "exec by name" "^hello workbench /home/user$" "$(inside workbench 'echo $GREETING $CAPSTAN_JOB $PWD')"
inside workbench 'echo kept > file' && expect "exec by id" "^kept$" "$(inside "$id" 'cat file')"
"$capstan" session code workbench 'x = 20' && expect "code by name" "^41$" "$("$capstan" session code workbench '2 * x + 1')"
expect "session list" "$id +base +running .*128 MiB +workbench" "$("$capstan" session list)"
echo there >"$scratch/in"
"$capstan" session cp "$scratch/in" workbench:in >/dev/null && expect "cp by name" "^there$" "$(inside workbench 'cat in')"
connected=$(curl -sf -X POST -H 'content-type: application/json' -d '{"timeout": 60}' "$base/sandboxes/workbench/connect")
expect "connect by name" "\"sandboxID\":\"$id\"" "$connected"
mcp=$(curl -s -D "$scratch/head" -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
  -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}' "$base/mcp?sandbox=workbench")
expect "MCP by name" '"serverInfo"' "$mcp"
mcp_session=$(sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: *\([0-9a-zA-Z]*\).*/\1/p' "$scratch/head")
mcp=$(curl -s -H "mcp-session-id: $mcp_session" -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
  -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_command","arguments":{"command":"cat file"}}}' "$base/mcp?sandbox=workbench")
expect "an MCP tool in it" "kept" "$mcp"

# What is wrong is refused with its place; what would empty it is refused; the rest is taken over.
code=0; apply other 'command: ls' >"$scratch/out" 2>&1 || code=$?
[ "$code" = 2 ] || fail "a wrong document gave $code: $(cat "$scratch/out")"
expect "its place" "spec.yaml:4:1: a sandbox waits for commands" "$(cat "$scratch/out")"
code=0; apply workbench 'timeout: 1h' 'env: {GREETING: hello}' 'labels: {team: a}' >"$scratch/out" 2>&1 || code=$?
expect "a changed timeout" "timeout cannot change from 8h to 1h while it runs" "$(cat "$scratch/out")"
apply workbench 'priority: 5' 'env: {GREETING: hello}' 'labels: {team: a}' >/dev/null
expect "still the same" "^kept$" "$(inside workbench 'cat file')"
apply absent 'template: nonsense' >/dev/null
wait_until 30 "an unknown template is told" state_is absent failed
expect "which" "no template 'nonsense'; there are .*base" "$(reason_of absent)"
apply barred 'network: {allow: [example.org]}' >/dev/null
wait_until 30 "a host that is not permitted is told" state_is barred failed
expect "which" "have no network" "$(reason_of barred)"
apply huge 'placement: {host_class: none-such}' >/dev/null
wait_until 30 "one that fits nowhere waits" state_is huge pending
expect "why it waits" "never" "$("$capstan" explain huge)"
"$capstan" cancel huge >/dev/null

# It ends by its time, or by a client, and the reason is told.
apply brief 'timeout: 1s' >/dev/null
wait_until 30 "its time ends it" state_is brief succeeded
expect "why" "its time is over" "$(reason_of brief)"
apply killed >/dev/null
wait_until 30 "it runs" state_is killed running
"$capstan" session kill killed >/dev/null
wait_until 30 "a client ends it" state_is killed succeeded
expect "why" "a client ended it" "$(reason_of killed)"

# Ending is graceful: a command gets SIGTERM and its grace.
apply graceful 'grace: 20s' >/dev/null
wait_until 30 "it runs" state_is graceful running
("$capstan" session exec graceful -- 'trap "echo got-term; exit 0" TERM; echo ready; while :; do sleep 0.1; done' >"$scratch/term" 2>&1 || true) &
wait_until 20 "the command runs" grep -q ready "$scratch/term"
"$capstan" cancel graceful >/dev/null
wait_until 15 "it is cancelled before its grace is over" state_is graceful cancelled
wait_until 10 "SIGTERM came" grep -q got-term "$scratch/term"
code=0; inside graceful true 2>/dev/null || code=$?
[ "$code" = 3 ] || fail "a cancelled sandbox can still be used: $code"

# kill -9 of the controller: `up` ends with it, the next one finds the sandbox as it was. Then of the worker.
kill -9 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$CAPSTAN_DATA_DIR/controller.json")"
wait "$up_pid" || true
start_capstan --bare
wait_until 30 "it is adopted" state_is workbench running
expect "the same session" "^$id$" "$(session_of workbench)"
expect "after the controller's death" "^kept$" "$(inside workbench 'cat file')"
kill -9 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$CAPSTAN_DATA_DIR/worker/worker.json")"
expect "after the worker's death" "^kept$" "$(inside workbench 'cat file')"
apply second 'restarts: {budget: 2, backoff: 0.1s}' >/dev/null
wait_until 30 "the next worker starts sandboxes" state_is second running
state_is workbench running || fail "the sandbox did not outlive the worker"

# The session host's death takes them along: told as lost; with a budget, a new one begins, empty.
# What they used by the last sample (every 5 s) is recorded, once.
inside second 'echo gone > file'
inside second 'head -c 100000000 /dev/zero | md5sum' >/dev/null
saved() { grep -qE '"name":"default/second"[^}]*"cpu_us":[0-9]{6}' "$CAPSTAN_DATA_DIR/sessions/usage.json"; }
wait_until 30 "a sample of it is saved" saved
before=$(session_of second)
kill -9 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$CAPSTAN_DATA_DIR/worker/session-host.json")"
wait_until 30 "it is lost" state_is workbench failed
expect "that it is lost" "lost: the session host ended" "$(reason_of workbench)"
again() { state_is second running && [ "$(session_of second)" != "$before" ]; }
wait_until 30 "the other starts again" again
expect "empty" "^0$" "$(inside second 'ls | wc -l')"
kept() { [ "$(sqlite3 "$CAPSTAN_DATA_DIR/store.sqlite" "select sum(runs), sum(cpu_us) > 50000 from compute_usage where id like 'sandbox/$before/%'")" = "1|1" ]; }
wait_until 20 "the usage that the session host left is recorded" kept

# Usage: once, by its tenant and name.
apply counted >/dev/null
wait_until 30 "it runs" state_is counted running
inside counted 'head -c 100000000 /dev/zero | md5sum' >/dev/null
"$capstan" cancel counted >/dev/null
wait_until 30 "it is cancelled" state_is counted cancelled
usage_rows() { sqlite3 "$CAPSTAN_DATA_DIR/store.sqlite" "select count(*), sum(runs), sum(cpu_us) > 50000 from compute_usage where name = 'default/counted' and kind = 'sandbox'"; }
usage_there() { usage_rows | grep -qE '^[1-9]\|1\|1$'; }
wait_until 20 "its usage is recorded once" usage_there

# A sandbox belongs to the project that is named as its tenant: its keys open it, others' do not, the control token does.
"$capstan" org add acme >/dev/null; "$capstan" project add acme/web >/dev/null; "$capstan" project add acme/shop >/dev/null
key_of() { "$capstan" key add "$1" --project "acme/$1" | grep -o 'sk-capstan-[A-Za-z0-9_-]*' | head -n 1; }
web=$(key_of web); shop=$(key_of shop)
printf 'tenants:\n- name: acme\n- {name: web, parent: acme}\n- {name: nightly, parent: web}\n' >"$scratch/tenants.yaml"
"$capstan" tenants apply -f "$scratch/tenants.yaml" >/dev/null
apply theirs 'tenant: web' >/dev/null
apply below 'tenant: nightly' >/dev/null
apply of-all >/dev/null
for name in theirs below of-all; do wait_until 30 "$name runs" state_is "$name" running; done
status() { curl -s -o "$scratch/body" -w '%{http_code}' -H "X-API-Key: $1" "$base/sandboxes/$2"; }
for name in theirs below; do
  [ "$(status "$web" "$name")" = 200 ] || fail "the project's key does not open $name: $(cat "$scratch/body")"
  [ "$(status "$shop" "$name")" = 404 ] || fail "another project's key opens $name"
  [ "$(status none "$name")" = 404 ] || fail "who has no key opens $name"
  expect "the control token" "^$name\$" "$(inside "$name" 'echo $CAPSTAN_JOB')"
done
[ "$(status "$web" of-all)" = 404 ] || fail "a project's key opens what is default/default's"
[ "$(status none of-all)" = 200 ] || fail "default/default does not have what has no project"
list_of() { curl -s -H "X-API-Key: $1" "$base/v2/sandboxes" | grep -o '"name":"[a-z-]*"' | sort | tr '\n' ' '; }
expect "its list" '^"name":"below" "name":"theirs" $' "$(list_of "$web")"
[ -z "$(list_of "$shop")" ] || fail "another project lists them: $(list_of "$shop")"
expect "the control token's list" " theirs\$" "$("$capstan" session list)"
apply starving 'tenant: web' 'placement: {host_class: none-such}' >/dev/null
[ "$(status "$web" starving)" = 409 ] || fail "its project is not told that it waits"
[ "$(status "$shop" starving)" = 404 ] || fail "another project is told that it waits"
inside theirs 'head -c 100000000 /dev/zero | md5sum' >/dev/null
"$capstan" cancel theirs below of-all starving >/dev/null
project_usage() { "$capstan" usage --by project | grep -qE "acme/web +sandbox +[1-9]"; }
wait_until 30 "its usage is its project's" project_usage

# `capstan down` ends what is left, and the session host.
apply last >/dev/null
wait_until 30 "it runs" state_is last running
host=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$CAPSTAN_DATA_DIR/worker/session-host.json")
"$capstan" down >/dev/null
wait "$up_pid" || true
up_pid=
if kill -0 "$host" 2>/dev/null; then fail "the session host outlived 'capstan down'"; fi
echo "placed sandboxes: all passed"
