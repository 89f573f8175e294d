#!/bin/sh
# A night's refresh as a job of a Ray cluster, for cron and for whoever starts commands: docs/operations.md.
#
#   GPTMILL_CONFIG=refresh.yaml GPTMILL_WORKSPACE=/mnt/gptmill/ws deploy/nightly.sh
#
# Exit codes are those of the refresh: 0 done or nothing new, 2 wrong input or configuration, 1 anything else, which is
# tried again. Its last line on standard output is the refresh's summary, as JSON. Where the cluster is, and the token
# for it, say RAY_API_SERVER_ADDRESS and RAY_AUTH_TOKEN_PATH.
set -u
: "${GPTMILL_CONFIG:?names the YAML file of the refresh}"
: "${GPTMILL_WORKSPACE:?names the folder or the s3:// or gs:// URI of the workspace}"
tries=${GPTMILL_TRIES:-3}
pause=${GPTMILL_PAUSE:-600}
wait=${GPTMILL_WAIT:-3600}

cd "$(dirname "$0")/.." || exit 2
PATH="$PWD/.venv/bin:$PATH"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

try=1
while :; do
    ray job submit --submission-id "refresh-$(date -u +%Y%m%dT%H%M%S)-$$-$try" --working-dir . -- \
        python -m workflows.refresh --config "$GPTMILL_CONFIG" --workspace "$GPTMILL_WORKSPACE" \
        --wait "$wait" --json "$@" >"$log" 2>&1
    code=$?
    cat "$log" >&2
    summary=$(grep '^{"command": "refresh"' "$log" | tail -n 1)
    case "$summary" in
    *'"exit_code": 0,'*) code=0 ;;
    *'"exit_code": 2,'*) code=2 ;;
    esac
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ] || [ "$try" -ge "$tries" ]; then
        [ -z "$summary" ] || printf '%s\n' "$summary"
        exit "$code"
    fi
    try=$((try + 1))
    sleep "$pause"
done
