#!/bin/sh
# Goal: an array of 20,000 tiny tasks in sandboxes is complete, with nothing lost and nothing recorded twice, though controller,
# worker and the launcher of sandboxes are killed while it runs; failures are told apart by their reason; in the end nothing is left.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "sandboxes need root"
"$capstan" sandbox check >/dev/null 2>&1 || skip "this host cannot enforce what sandboxes promise"
export TMPDIR=$scratch/tmp
mkdir -m 1777 "$TMPDIR"
start_capstan --bare
tasks=20000

pid_in() { sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$1"; }
ended() { "$capstan" -o json get "$1" | sed -n 's/^ *"ready": *\([0-9]*\).*/\1/p'; }
launcher() { pgrep -P "$(pid_in "$CAPSTAN_DATA_DIR/worker/worker.json")" -f 'capstan-sandbox --serve'; }
ended_at_least() { [ "$(ended "$1")" -ge "$2" ]; }

cat >"$scratch/squares.yaml" <<YAML
kind: tasks
name: squares
count: $tasks
timeout: 20s
sandbox:
  lane: python
  batch: 250
  code: |
    import os
    i = int(os.environ['CAPSTAN_TASK_INDEX'])
    print(i * i)
YAML
"$capstan" apply -f "$scratch/squares.yaml"
wait_until 60 "some tasks have ended" ended_at_least squares 500
kill -9 "$(pid_in "$CAPSTAN_DATA_DIR/controller.json")"
wait "$up_pid" || true
start_capstan --bare
wait_until 60 "the array goes on" ended_at_least squares $((tasks / 4))
kill -9 "$(launcher)"
wait_until 60 "the array goes on" ended_at_least squares $((tasks / 2))
kill -9 "$(pid_in "$CAPSTAN_DATA_DIR/worker/worker.json")"
"$capstan" wait squares || fail "squares did not succeed: $("$capstan" explain squares)"

"$capstan" results squares >"$scratch/results"
expect "a result a task" "^$tasks\$" "$(wc -l <"$scratch/results" | tr -d ' ')"
expect "all different" "^$tasks\$" "$(sed 's/^{"index":\([0-9]*\),.*/\1/' "$scratch/results" | sort -un | wc -l | tr -d ' ')"
wrong=$(awk -F'[:,"\\\\]+' '{ for (i = 1; i < NF; ++i) { if ($i == "index") n = $(i + 1); if ($i == "out") o = $(i + 1) } if (o != n * n) print n, o }' \
  OFMT='%.0f' CONVFMT='%.0f' "$scratch/results" | head -n 3)
[ -z "$wrong" ] || fail "wrong results: $wrong"
expect "explain counts" "$tasks of $tasks tasks ended" "$("$capstan" explain squares)"
expect "nothing failed" '^0$' "$("$capstan" results squares --failed | wc -l | tr -d ' ')"

# Every way to fail has its count, and its line.
cat >"$scratch/ways.yaml" <<'YAML'
kind: tasks
name: ways
count: 6
timeout: 2s
resources: {cpus: 0.5, memory: 32MiB}
command: 'case {index} in 0) exit 3;; 1) kill -TERM $$;; 2) exec python3 -S -c "bytearray(100000000)";; 3) sleep 30;; 4) no-such-program;; 5) echo well;; esac'
sandbox: {}
YAML
"$capstan" apply -w -f "$scratch/ways.yaml" && fail "an array with failures succeeded"
explained=$("$capstan" explain ways)
expect "explain ways" "5 of 6 tasks failed" "$explained"
for reason in '2 exit' '1 signal' '1 memory' '1 timeout'; do expect "explain ways" "$reason" "$explained"; done
expect "five lines" '^5$' "$("$capstan" results ways --failed | wc -l | tr -d ' ')"
refused=$("$capstan" logs ways 2>&1) && fail "a sandboxed array has logs"
expect "logs point to results" "capstan results ways" "$refused"

# A cancelled array leaves nothing running.
printf 'kind: tasks\nname: long\ncount: 4\ngrace: 1s\ncommand: [sleep, "3131"]\nsandbox: {}\n' >"$scratch/long.yaml"
"$capstan" apply -f "$scratch/long.yaml" >/dev/null
wait_until 20 "long runs" state_is long running
"$capstan" cancel long >/dev/null
wait_until 20 "long is cancelled" state_is long cancelled
if pgrep -f '^sleep 3131$' >/dev/null; then fail "a cancelled task still runs"; fi

# Nothing is left: no process, no cgroup, no temporary file, no file of a sandbox's user.
last=$(launcher)
group=$(find "/proc/$last/fd" -lname '*/sandbox-*-tasks' -printf '%l\n' | sed 's,.*/,,' | sort -u)
expect "the launcher's cgroup" '^sandbox-[0-9a-f]*-tasks$' "$group"
"$capstan" down >/dev/null 2>&1
wait "$up_pid" || true
up_pid=
kill -0 "$last" 2>/dev/null && fail "the launcher still runs"
left=$(find /sys/fs/cgroup -type d -name "$group"; find "$TMPDIR" -mindepth 1; find "$scratch" -uid +1879048191)
[ -z "$left" ] || fail "left behind: $left"
echo "tasks: all passed"
