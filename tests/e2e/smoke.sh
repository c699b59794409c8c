#!/bin/sh
# Goal: the main job as a newcomer does it: up, a gang, its logs, a change, an explanation, a cancel, down, up again.
. "$(dirname "$0")/lib.sh"
start_capstan --bare

cat >"$scratch/gang.yaml" <<'YAML'
kind: job
name: gang
ranks: 2
resources: {cpus: 0.1}
command: echo "rank $RANK of $WORLD_SIZE"; sleep 300
YAML
expect "apply" "job/gang created" "$("$capstan" apply -f "$scratch/gang.yaml")"
wait_until 20 "the gang runs" state_is gang running
wait_until 10 "rank 1 says who it is" sh -c "'$capstan' logs gang --rank 1 | grep -q 'rank 1 of 2'"
expect "the same spec changes nothing" "job/gang unchanged" "$("$capstan" apply -f "$scratch/gang.yaml")"

sed -i 's/^ranks: 2/ranks: 2\npriority: 5/' "$scratch/gang.yaml"
expect "a priority restarts nothing" "updated$" "$("$capstan" apply -f "$scratch/gang.yaml" | head -n 1)"
sed -i 's/sleep 300/sleep 301/' "$scratch/gang.yaml"
expect "a command restarts the gang" "restarts: all" "$("$capstan" apply --dry-run -f "$scratch/gang.yaml")"
expect "explain" "." "$("$capstan" explain gang)"

# Never: no host of this size. The reason is in words.
printf 'kind: job\nname: huge\nresources: {cpus: 10000}\ncommand: "true"\n' >"$scratch/huge.yaml"
"$capstan" apply -f "$scratch/huge.yaml" >/dev/null
wait_until 10 "huge is explained" sh -c "'$capstan' explain huge | grep -qi never"

# Exit codes mean something.
set +e
"$capstan" get nobody >/dev/null 2>&1; expect "missing" '^3$' "$?"
"$capstan" apply -f /dev/null >/dev/null 2>&1; expect "invalid" '^2$' "$?"
"$capstan" run -- sh -c 'exit 7' >/dev/null 2>&1; expect "failed" '^1$' "$?"
set -e
expect "run shows output" "hello" "$("$capstan" run -- echo hello)"

# A second up on the same directory is refused with the owner's pid.
refused=$("$capstan" up --port $((port + 1)) 2>&1) && fail "a second up was accepted"
expect "second up" "as process $up_pid" "$refused"

"$capstan" cancel gang >/dev/null
wait_until 20 "the gang is cancelled" state_is gang cancelled

# Ctrl-C leaves the ranks; the next up adopts them.
printf 'kind: job\nname: stays\nresources: {cpus: 0.1}\ncommand: [sleep, "311"]\n' >"$scratch/stays.yaml"
"$capstan" apply -f "$scratch/stays.yaml" >/dev/null
wait_until 20 "stays runs" state_is stays running
before=$(pgrep -f '^sleep 311$' | sort | tr '\n' ' ')
kill -INT "$up_pid"; wait "$up_pid" || true
expect "Ctrl-C says what keeps running" "stays" "$(cat "$scratch/up.log")"
start_capstan --bare
wait_until 20 "stays is adopted" state_is stays running
expect "the same process" "^$before$" "$(pgrep -f '^sleep 311$' | sort | tr '\n' ' ')"

# down without a controller stops the ranks too; they resume at the next up.
kill -INT "$up_pid"; wait "$up_pid" || true
expect "down without a controller" "Capstan is down" "$("$capstan" down)"
if pgrep -f '^sleep 311$' >/dev/null; then fail "down without a controller left a rank"; fi
start_capstan --bare
wait_until 20 "stays resumes" state_is stays running

"$capstan" down
wait "$up_pid" || fail "up ended with $?"
up_pid=
if pgrep -f '^sleep 311$' >/dev/null; then fail "down left a rank"; fi
echo "smoke: all passed"
