#!/usr/bin/env bash
# A legacy app written around curl: one payment, no signing.
#
#   URL=<full target> BODY=<text> [HTTPS_PROXY=http://127.0.0.1:PORT] [CURL_CA_BUNDLE=ca.pem] curl.sh
#
# Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete
# HTTP answer came, whatever its status; otherwise exits with curl's own code. curl reads the
# proxy from HTTPS_PROXY (lower case wins; for http URLs http_proxy counts in lower case only)
# and the trusted CA from CURL_CA_BUNDLE or SSL_CERT_FILE. PROXY, when it is set, is curl's own
# --proxy instead: no variable counts then, and an empty PROXY means none.

set -euo pipefail

: "${URL:?the full target}" "${BODY?the text to send}"

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

proxy=()
[[ -v PROXY ]] && proxy=(--proxy "$PROXY" --noproxy '')

# --data-raw, because a body that starts with @ is a body and not a file name. The two header
# values are those of the last answer: not of a 100, nor of a CONNECT.
facts=$(curl --silent --show-error --max-time 30 \
    "${proxy[@]}" \
    --header 'Content-Type: application/json' --data-raw "$BODY" --output "$answer" \
    --write-out '%{http_code}\n%header{countersign-verdict}\n%header{countersign-error}\n' \
    "$URL")

python3 -c '
import json, sys
facts = (sys.argv[2].split("\n") + ["", ""])[:3]
with open(sys.argv[1], "rb") as answer:
    body = answer.read().decode("utf-8", "replace")
print(json.dumps({"status": int(facts[0]), "verdict": facts[1] or None, "error": facts[2] or None, "body": body}))
' "$answer" "$facts"
