"""Runs an MCP server that speaks on its standard input and output, and writes down every line that it is sent."""

import json
import os
import subprocess
import sys

with open(os.environ["HOLDPOINT_SEEN"], "a", buffering=1, encoding="utf-8") as seen:
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
    assert server.stdin is not None
    for line in sys.stdin.buffer:
        seen.write(json.dumps({"event": "complete", "pid": os.getpid(), "body": line.decode("utf-8")}) + "\n")
        server.stdin.write(line)
        server.stdin.flush()
    server.stdin.close()
    sys.exit(server.wait())
