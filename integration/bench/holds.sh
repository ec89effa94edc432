#!/usr/bin/env bash
# Counts the instructions of a call under valgrind, with hold rules of which none matches and without any.
# The gateway is HOLDPOINT_BIN, else the release build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/../setup.sh"
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
if ! command -v valgrind >/dev/null || ! command -v vgdb >/dev/null; then
    echo "holds: installing valgrind"
    if ! (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends valgrind) \
        >"$cache/valgrind.log" 2>&1; then
        tail -n 40 "$cache/valgrind.log" >&2
        exit 1
    fi
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/runner/bin/python" "$here/holds.py" "$@"
