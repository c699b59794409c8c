#!/bin/sh
# Runs the client tests against a running server, with the packages and the node that package-lock.json pins:
#
#   CAPSTAN_BASE_URL=http://127.0.0.1:8080/v1 CAPSTAN_GATEWAY=1 tests/clients/run.sh
#
# The variables are explained in openai_chat_test.mjs. Exit code 77: skipped, because the packages cannot be installed.
set -eu
cd "$(dirname "$0")"
sh ./install.sh
exec node_modules/node/bin/node openai_chat_test.mjs
