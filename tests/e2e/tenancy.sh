#!/bin/sh
# Goal: keys, limits, catalogue and usage as docs/gateway-tenants.md and docs/models.md show them, against the real
# gateway and model; usage survives a kill -9 of everything.
. "$(dirname "$0")/lib.sh"
start_capstan --require-keys
json='content-type: application/json'
question='{"model":"abacus","messages":[{"role":"user","content":"What is 2 + 2?"}],"max_tokens":100}'
ask() { curl -s -w '\n%{http_code}\n' -D "$scratch/headers" "$base/v1/chat/completions" -H "$json" "$@" -d "$question"; }
answers() { curl -sf -o /dev/null "$base/v1/chat/completions" -H "$json" -H "authorization: Bearer $key" -d "$question"; }

expect "no key" '"invalid_api_key"' "$(ask)"
expect "no key" '^401$' "$(ask)"
"$capstan" org add acme >/dev/null
"$capstan" project add acme/web --weight 3 >/dev/null
key=$("$capstan" key add ci --project acme/web --models abacus 2>/dev/null)
expect "a key" '^sk-capstan-[0-9a-f]{48}$' "$key"
expect "the list does not show it" 'acme/web/ci +sk-capstan-[0-9a-f]{8}…' "$("$capstan" key)"
wait_until 60 "abacus answers" answers

# Prices and usage.
"$capstan" model add abacus --price-input 1 --price-cached 0.10 --price-output 4 >/dev/null
expect "the card" 'per million tokens +1.00 in, 0.10 cached, 4.00 out' "$("$capstan" model show abacus)"
expect "an answer" '^200$' "$(ask -H "authorization: Bearer $key")"
expect "usage" '^acme/web/ci +[2-9]' "$("$capstan" usage --by key)"
expect "the request" ' acme/web/ci +abacus +200 ' "$("$capstan" usage --requests)"
expect "the command line's own requests" '4' "$("$capstan" chat --no-reasoning 'What is 2 + 2?')"
expect "are of nobody" '^anonymous +1 ' "$("$capstan" usage --by key)"

# Limits.
"$capstan" limit set acme/web/ci --requests 1000/day >/dev/null
ask -H "authorization: Bearer $key" >/dev/null
expect "rate-limit headers" 'x-ratelimit-limit-requests: 1000' "$(cat "$scratch/headers")"
"$capstan" limit set acme/web/ci --dollars 0.0001/day >/dev/null
expect "money" '"insufficient_quota"' "$(ask -H "authorization: Bearer $key")"
expect "the list" 'acme/web/ci +all +dollars +day +\$0.0001 ' "$("$capstan" limit)"
"$capstan" limit rm 2 >/dev/null

# Nothing is lost by kill -9 of the supervisor, with which the controller goes.
before=$("$capstan" -o json usage --by key)
kill -9 "$up_pid"; wait "$up_pid" 2>/dev/null || true
sleep 1
start_capstan --require-keys
[ "$("$capstan" -o json usage --by key)" = "$before" ] || fail "usage changed by a kill: $before"
wait_until 60 "abacus answers again" answers

# A key with the scope admin administers its own organisation, and no other.
admin=$("$capstan" key add boss --project acme/web --role admin --scopes admin 2>/dev/null)
"$capstan" org add other >/dev/null && "$capstan" project add other/x >/dev/null
as_admin() { CAPSTAN_TOKEN=$admin "$capstan" "$@" 2>&1 || true; }
expect "its projects" 'acme/web' "$(as_admin project)"
case $(as_admin project) in *other/x*) fail "an admin key sees another organisation" ;; esac
expect "a key of its own" '^sk-capstan-' "$(as_admin key add made --project acme/web)"
expect "none elsewhere" 'another organisation' "$(as_admin key add made --project other/x)"
expect "no owner" 'cannot make one with the role owner' "$(as_admin key add o --project acme/web --role owner)"
expect "not the fleet" 'control token' "$(as_admin status)"

"$capstan" key revoke acme/web/ci >/dev/null
expect "revoked" 'was revoked' "$(ask -H "authorization: Bearer $key")"
expect "the audit log" 'control token +key.revoke +acme/web/ci' "$("$capstan" audit)"
expect "and the admin's" 'key acme/web/boss +key.add +acme/web/made' "$("$capstan" audit)"
if grep -rqF "${key#sk-capstan-????????}" "$CAPSTAN_DATA_DIR/log" "$CAPSTAN_DATA_DIR/store.sqlite" "$CAPSTAN_DATA_DIR/store.sqlite-wal"; then
  fail "the key is in a file"
fi
echo "tenancy: all passed"
