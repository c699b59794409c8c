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

# A model elsewhere, behind a key of its own; an alias that splits requests between it and abacus.
cat >"$scratch/elsewhere.py" <<'PY'
import http.server, json, sys

class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        said = "key " + self.headers.get("authorization", "none")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
open(sys.argv[1], "w").write(str(server.server_port))
server.serve_forever()
PY
timeout 300 python3 "$scratch/elsewhere.py" "$scratch/elsewhere.port" &
elsewhere=$!
wait_until 20 "the server elsewhere listens" test -s "$scratch/elsewhere.port"
wide=$("$capstan" key add wide --project acme/web 2>/dev/null)
of() { curl -s "$base/v1/chat/completions" -H "$json" -H "authorization: Bearer $wide" -d "{\"model\":\"$1\",\"messages\":[{\"role\":\"user\",\"content\":\"What is 2 + 2?\"}],\"max_tokens\":100}"; }
SECRET_OF_ELSEWHERE=sk-elsewhere "$capstan" model add elsewhere --source "http://127.0.0.1:$(cat "$scratch/elsewhere.port")/v1" --key-env SECRET_OF_ELSEWHERE >/dev/null
expect "its own key is sent" 'key Bearer sk-elsewhere' "$(of elsewhere)"
expect "it is said that it has a key" 'has_key +true' "$("$capstan" model show elsewhere)"
case $("$capstan" -o json model; "$capstan" audit; cat "$CAPSTAN_DATA_DIR"/log/*.log; cat "$CAPSTAN_DATA_DIR"/store.sqlite* | tr -d "\000") in
  *sk-elsewhere*) fail "the key of a model elsewhere is shown or stored in clear" ;;
esac
: >"$scratch/empty"
"$capstan" model add elsewhere --key-file "$scratch/empty" >/dev/null
expect "an empty file takes the key away" 'key none' "$(of elsewhere)"
"$capstan" model alias both abacus=1 elsewhere=1 >/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do of both; done >"$scratch/both"
expect "the alias reaches one" 'key none' "$(cat "$scratch/both")"
expect "and the other" '"content":"4"' "$(cat "$scratch/both")"
expect "usage is by the model's own name" '^elsewhere +([5-9]|1[0-9]|2[0-9]) ' "$("$capstan" usage --by model)"
kill "$elsewhere"

"$capstan" key revoke acme/web/ci >/dev/null
expect "revoked" 'was revoked' "$(ask -H "authorization: Bearer $key")"
expect "the audit log" 'control token +key.revoke +acme/web/ci' "$("$capstan" audit)"
expect "and the admin's" 'key acme/web/boss +key.add +acme/web/made' "$("$capstan" audit)"
if grep -rqF "${key#sk-capstan-????????}" "$CAPSTAN_DATA_DIR/log" "$CAPSTAN_DATA_DIR/store.sqlite" "$CAPSTAN_DATA_DIR/store.sqlite-wal"; then
  fail "the key is in a file"
fi
echo "tenancy: all passed"
