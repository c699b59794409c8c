#!/bin/sh
# Goal: malformed requests get errors that a newcomer can act on. Method: each case of tests/golden/requests/ is a request
# (METHOD PATH, then the body); the answer's status and body must equal the .expected file.
# CAPSTAN_UPDATE_GOLDEN=1 rewrites them.
. "$(dirname "$0")/lib.sh"
start_capstan --bare
token=$(cat "$CAPSTAN_DATA_DIR/control.token")
cases=0
for request in tests/golden/requests/*.request; do
  cases=$((cases + 1))
  read -r method path <"$request"
  tail -n +2 "$request" >"$scratch/body"
  type=application/json
  case $path in /api/v1/apply*) type=application/yaml ;; esac
  curl -s -X "$method" -H "Authorization: Bearer $token" -H "Content-Type: $type" --data-binary "@$scratch/body" \
    -w '\nstatus %{http_code}\n' "$base$path" | sed 's/req[-_][0-9a-f]*/REQUEST_ID/g' >"$scratch/answer"
  expected=${request%.request}.expected
  if [ -n "${CAPSTAN_UPDATE_GOLDEN:-}" ]; then cp "$scratch/answer" "$expected"; fi
  diff -u "$expected" "$scratch/answer" || fail "$request"
done
[ "$cases" -ge 10 ] || fail "only $cases cases found"
echo "requests: $cases cases passed"
