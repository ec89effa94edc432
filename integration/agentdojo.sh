#!/usr/bin/env bash
# Plays sessions of AgentDojo and of our own through the gateway: exfiltration stopped, honest work untouched, ways around.
# `agentdojo.sh quick` plays every honest task and a part of the attacks, `agentdojo.sh` all of them.
# The gateway is HOLDPOINT_BIN, else the release build, else the debug build. HOLDPOINT_AGENTDOJO_DIR keeps what it wrote.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
"$here/setup.sh" agentdojo
export HOLDPOINT_INTEGRATION_MODE=${1:-full} PYTHONDONTWRITEBYTECODE=1
exec "$cache/agentdojo/bin/python" "$here/agentdojo/benchmark.py"
