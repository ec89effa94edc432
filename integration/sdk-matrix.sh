#!/usr/bin/env bash
# Prints what each real SDK sees of each thing that can become of a call, in both eras, through the gateway.
# The gateway is HOLDPOINT_BIN, else the release build, else the debug build; HOLDPOINT_SHIM=nginx replaces `connect`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
"$here/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/runner/bin/python" "$here/sdk_matrix.py"
