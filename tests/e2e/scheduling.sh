#!/bin/sh
# Goal: the fleet and its rules as an operator meets them: a cordon, tenants, the queue, its policy, a reservation, a
# window of maintenance, a fleet file, and what each says when it is wrong.
. "$(dirname "$0")/lib.sh"
start_capstan --bare
has_joined() { "$capstan" hosts | grep -q healthy; }
wait_until 30 "the host's worker has joined" has_joined
host=$("$capstan" hosts --names)
expect "one host" "^[^ ]+$" "$host"
expect "its condition" "healthy" "$("$capstan" hosts)"
expect "the tree" "all +- +1/1" "$("$capstan" fleet show)"

# A cordoned host takes nothing; the queue says why; afterwards the job runs.
expect "cordon" "1 host cordoned" "$("$capstan" hosts cordon "$host" --why 'noisy fan')"
printf 'kind: job\nname: patient\nresources: {cpus: 0.1}\ncommand: sleep 300\n' >"$scratch/patient.yaml"
"$capstan" apply -f "$scratch/patient.yaml" >/dev/null
expect "it waits in the queue" "1 +patient +job" "$("$capstan" queue)"
expect "the tree says so" "1 cordoned" "$("$capstan" fleet show)"
expect "uncordon" "1 host uncordoned" "$("$capstan" hosts uncordon "$host")"
wait_until 20 "patient runs" state_is patient running
expect "nobody waits" "^0 wait" "$("$capstan" queue)"

# A drain moves work away; with nowhere to go it waits until the host is back.
"$capstan" hosts drain "$host" >/dev/null
wait_until 20 "patient left the host" state_is patient pending
"$capstan" hosts return "$host" >/dev/null
wait_until 20 "patient runs again" state_is patient running
"$capstan" cancel patient >/dev/null
wait_until 20 "patient is gone" state_is patient cancelled

# Tenants: a limit that no job of this size meets is explained.
cat >"$scratch/tenants.yaml" <<'YAML'
tenants:
- name: research
  weight: 2
- name: small
  parent: research
  limit: {cpus: 0.2}
YAML
expect "tenants" "2 tenants set" "$("$capstan" tenants apply -f "$scratch/tenants.yaml")"
expect "the tree of tenants" "^  small" "$("$capstan" tenants list)"
printf 'kind: job\nname: greedy\ntenant: small\nresources: {cpus: 0.5}\ncommand: "true"\n' >"$scratch/greedy.yaml"
"$capstan" apply -f "$scratch/greedy.yaml" >/dev/null
expect "quota" "never" "$("$capstan" explain greedy)"
set +e
"$capstan" tenants rm small >/dev/null 2>&1; expect "held tenants stay" '^6$' "$?"
set -e
"$capstan" cancel greedy >/dev/null
wait_until 20 "greedy is gone" state_is greedy cancelled
expect "tenants rm" "small removed" "$("$capstan" tenants rm small)"

# The order of the queue.
expect "policy" "order +srsf" "$("$capstan" policy --order srsf)"
expect "policy stays" "order +srsf" "$("$capstan" policy)"
set +e
"$capstan" policy --order lifo >/dev/null 2>&1; expect "unknown order" '^2$' "$?"
"$capstan" hosts cordon nowhere >/dev/null 2>&1; expect "unknown host" '^3$' "$?"
set -e

# A reservation keeps everybody else away; a window of maintenance keeps all away.
expect "reserve" "reservation: block-1" "$("$capstan" reserve block-1 --tenant research --hosts 1 --until +1h)"
expect "reservations" "block-1 +reservation +research +1 " "$("$capstan" reservations)"
printf 'kind: job\nname: stranger\nresources: {cpus: 0.1}\ncommand: "true"\n' >"$scratch/stranger.yaml"
"$capstan" apply -f "$scratch/stranger.yaml" >/dev/null
expect "the stranger waits" "stranger" "$("$capstan" queue)"
printf 'kind: job\nname: guest\ntenant: research\nplacement: {reservation: block-1}\nresources: {cpus: 0.1}\ncommand: "true"\n' \
  >"$scratch/guest.yaml"
"$capstan" apply -f "$scratch/guest.yaml" >/dev/null
wait_until 20 "the guest ran" state_is guest succeeded
expect "unreserve" "block-1 given back" "$("$capstan" unreserve block-1)"
wait_until 20 "the stranger ran" state_is stranger succeeded
set +e
"$capstan" reserve late --tenant research --hosts 1 --from +2h --until +1h >/dev/null 2>&1; expect "no window" '^2$' "$?"
"$capstan" reserve nobodys --tenant nobody --hosts 1 --until +1h >/dev/null 2>&1; expect "no tenant" '^3$' "$?"
"$capstan" unreserve late >/dev/null 2>&1; expect "no reservation" '^3$' "$?"
set -e
expect "maintain" "1 host is kept free" "$("$capstan" maintain "$host" --from +1h --until +2h)"
expect "defragment" "nothing to move" "$("$capstan" defragment)"

# A fleet file: its hosts are there, and absent until their workers call.
expect "fleet apply" "fleet lab: [0-9]+ hosts added" "$("$capstan" fleet apply -f examples/fleets/lab.yaml)"
expect "its UltraServers" "main +0/2" "$("$capstan" fleet show --level cluster)"
expect "they are absent" "[0-9]+ absent" "$("$capstan" fleet)"
"$capstan" fleet generate --name made --region far --ultraservers 100 --clusters 3 --hosts 7 >"$scratch/made.yaml"
expect "fleet generate" "fleet made: 1807 hosts added" "$("$capstan" fleet apply -f "$scratch/made.yaml")"
expect "a filter" "^far|c0-prest-h00000 +absent" "$("$capstan" hosts --under c0/prest)"
expect "what cannot work" "main-b0-cpu0 +absent" "$("$capstan" hosts --unavailable --under main)"
set +e
"$capstan" fleet apply -f examples/fleets/lab.yaml >/dev/null 2>&1; expect "twice" '^6$' "$?"
"$capstan" fleet apply -f "$scratch/tenants.yaml" >/dev/null 2>&1; expect "no fleet" '^2$' "$?"
set -e
expect "an UltraServer by name" "18 hosts cordoned" "$("$capstan" hosts cordon main-b0-u0)"

# All of it is still there after a restart.
kill -INT "$up_pid"; wait "$up_pid" || true
start_capstan --bare
expect "tenants stay" "research" "$("$capstan" tenants list)"
expect "the policy stays" "order +srsf" "$("$capstan" policy)"
expect "the fleet stays" "main +0/2" "$("$capstan" fleet show --level cluster)"
expect "the window stays" "maintenance" "$("$capstan" reservations)"
"$capstan" down >/dev/null
wait "$up_pid" || fail "up ended with $?"
up_pid=
echo "scheduling: all passed"
