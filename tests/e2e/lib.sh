# Sourced by the end-to-end tests: a Capstan of its own in a temporary directory, ended whatever happens.
#
# Environment: CAPSTAN_BIN is the folder of the built programs. Exit code 77 means skipped (ctest shows it so).
set -eu

capstan=$CAPSTAN_BIN/capstan
scratch=$(mktemp -d)
chmod 711 "$scratch"  # started as root, the controller is another user, who must be able to enter
export CAPSTAN_DATA_DIR=$scratch/data
port=$((20000 + $$ % 9000))
base=http://127.0.0.1:$port
up_pid=

fail() { echo "FAILED: $*" >&2; echo "--- up.log" >&2; tail -n 40 "$scratch/up.log" >&2 || true; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }

finish() {
  code=$?
  trap - EXIT
  if [ -n "$up_pid" ] && kill -0 "$up_pid" 2>/dev/null; then
    timeout 60 "$capstan" down >/dev/null 2>&1 || kill "$up_pid" 2>/dev/null || true
    wait "$up_pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Starts `capstan up` with the given options and waits until it is ready.
start_capstan() {
  "$capstan" up --port "$port" "$@" >>"$scratch/up.log" 2>&1 &
  up_pid=$!
  wait_until 30 "Capstan answers on port $port" curl -sf -o /dev/null "$base/readyz"
}

# wait_until SECONDS WHAT COMMAND…: retries the command until it succeeds.
wait_until() {
  seconds=$1; what=$2; shift 2
  end=$(($(date +%s) + seconds))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || fail "waited $seconds s in vain until: $what"
    sleep 0.1
  done
}

state_is() { "$capstan" -o json get "$1" | grep -q "\"state\": \"$2\""; }

# expect WHAT PATTERN TEXT: the text must match the extended regular expression.
expect() { printf '%s\n' "$3" | grep -qE "$2" || fail "$1: expected /$2/, got: $3"; }
