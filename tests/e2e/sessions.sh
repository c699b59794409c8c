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
for test in sandboxes code_interpreter mcp; do
  "$node" --test --test-concurrency=1 "$clients/${test}_test.mjs" >"$scratch/$test.log" 2>&1 ||
    { cat "$scratch/$test.log" >&2; fail "$test"; }
done

# A wrong key is refused, a right one has sandboxes of its own.
status() { curl -s -o "$scratch/body" -w '%{http_code}' -H "X-API-Key: $1" "$base/v2/sandboxes"; }
[ "$(status sk-capstan-wrong)" = 401 ] || fail "a wrong key was not refused"

echo "sessions: all passed"
