#!/bin/sh
# Goal: after an upgrade, a session host of the build before runs on for its sessions, people are told, and it is replaced once it
# has none. Method: a copy of the program with another build id has a session before `capstan up` starts. Skipped where the host
# cannot enforce sandboxes.
. "$(dirname "$0")/lib.sh"
"$capstan" sandbox check >/dev/null 2>&1 || skip "this host cannot enforce sandboxes (capstan sandbox check)"
start_capstan --bare  # makes the data directory
"$capstan" down >/dev/null
wait "$up_pid" || true
mkdir "$scratch/old"
for program in "$CAPSTAN_BIN"/capstan-*; do [ ! -x "$program" ] || ln -s "$program" "$scratch/old/"; done
python3 - "$capstan" "$scratch/old/capstan" <<'END'
import sys
bytes = open(sys.argv[1], "rb").read()
note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
at = bytes.index(note) + len(note)
open(sys.argv[2], "wb").write(bytes[:at] + b"\xba\xdb\xad" + bytes[at + 3:])
END
chmod 755 "$scratch/old/capstan"
of_address() { sed -n "s/.*\"$1\":\"\{0,1\}\([0-9a-f]*\).*/\1/p" "$CAPSTAN_DATA_DIR/sessions.json"; }
"$scratch/old/capstan" session-host --data-dir "$CAPSTAN_DATA_DIR" 2>"$scratch/old.log" &
wait_until 20 "the older session host runs" test -s "$CAPSTAN_DATA_DIR/sessions.json"
old=$(of_address build)
expect "its build" "^badbad" "$old"
id=$(curl -sf -X POST -H "x-capstan-host-token: $(of_address token)" -H 'content-type: application/json' -d '{"timeout": 600}' \
  "http://127.0.0.1:$(of_address port)/v2/sandboxes" | sed -n 's/.*"sandboxID":"\([0-9a-f]*\)".*/\1/p')
[ -n "$id" ] || fail "the older session host makes no sandbox: $(cat "$scratch/old.log")"

# It stays while it has a session, which works, and people are told.
start_capstan --bare
wait_until 20 "the worker says so" grep -q "session host is of another build.*$old" "$CAPSTAN_DATA_DIR/log/worker.log"
expect "the session works" "^works$" "$("$capstan" session exec "$id" -- 'echo works')"
expect "session list" "of another build .$old" "$("$capstan" session list 2>&1)"
expect "sandbox check" "another build .$old" "$("$capstan" sandbox check)"
[ "$(of_address build)" = "$old" ] || fail "it was replaced while it had a session"

# Then it is replaced, and sandboxes are made by this build.
"$capstan" session kill "$id" >/dev/null
replaced() { [ -n "$(of_address build)" ] && [ "$(of_address build)" != "$old" ]; }
wait_until 20 "it is replaced" replaced
makes() { id=$("$capstan" session create); }
wait_until 20 "the next one makes sandboxes" makes
"$capstan" session list >"$scratch/out" 2>&1
expect "its list" "^$id " "$(cat "$scratch/out")"
if grep -q "another build" "$scratch/out"; then fail "the session host of this build is called another's"; fi
echo "session host build: all passed"
