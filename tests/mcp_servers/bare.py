"""A server in plain Python, up in no time, that speaks the protocol of 2025 and misbehaves as it is told: ``python bare.py MOOD …``.

mute             never answers
noisy            writes lines that are no messages before each answer
deaf             does not end when its input is closed or when it is told to
late             takes a while to start: ``late 0.5``
forgetful        answers the handshake, nothing else
child            has a child in its own group; ``orphan``: a grandchild whose parent has ended
endless          gives always one more page of tools
flood            sends notifications as fast as it can for a while, then goes on
closing          closes its output on the first call and lives on
odd              answers calls with errors and results that are against the protocol
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

MOODS = sys.argv[1:]
LONG_SLEEP = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
OBJECT = {"type": "object"}
TOOLS = ["echo", "pid", "large", "with-id-last", "code", "nothing", "answer-then-end", "ask", "sleep"]


def send(message: dict[str, Any]) -> None:
    """Write one message."""
    if "noisy" in MOODS:
        print("noise on standard output")
        print('{"json": "but no message"}')
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def text(value: str) -> dict[str, Any]:
    """A result of one text."""
    return {"content": [{"type": "text", "text": value}]}


def list_tools(params: dict[str, Any]) -> dict[str, Any]:
    """One page of tools, by two."""
    start = int(params.get("cursor", 0))
    if "endless" in MOODS:
        tools = [{"name": f"tool-{start:06}", "inputSchema": OBJECT, "description": "x" * 1000}]
        return {"tools": tools, "nextCursor": str(start + 1)}
    page = {"tools": [{"name": name, "inputSchema": OBJECT} for name in TOOLS[start : start + 2]]}
    return page | ({"nextCursor": str(start + 2)} if start + 2 < len(TOOLS) else {})


def call(number: int, params: dict[str, Any]) -> None:
    """Answer a call."""
    arguments = params.get("arguments", {})
    if "closing" in MOODS:
        os.close(1)
        time.sleep(600)
    match params["name"]:
        case "pid":
            send({"id": number, "result": text(str(os.getpid()))})
        case "large":
            send({"id": number, "result": text("x" * arguments["bytes"])})
        case "with-id-last":
            body = json.dumps({"result": text("x" * arguments["bytes"]), "jsonrpc": "2.0", "id": number})
            print(body, flush=True)
        case "code":
            send({"id": number, "error": {"code": arguments["code"], "message": arguments["message"]}})
        case "nothing":
            send({"id": number, "result": {"content": "no list"}})
        case "ask":
            send({"id": "asked", "method": arguments["method"], "params": arguments["params"]})
            send({"id": number, "result": text(sys.stdin.readline())})
        case "sleep":
            time.sleep(arguments["seconds"])
            send({"id": number, "result": text("awake")})
        case "answer-then-end":
            send({"id": number, "result": text("bye")})
            os._exit(0)
        case _:
            send({"id": number, "result": text(json.dumps(arguments))})


def answer(request: dict[str, Any]) -> None:
    """Answer a request."""
    number = request["id"]
    match request["method"]:
        case "initialize":
            info = {"name": "bare", "version": "1"}
            send({"id": number, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}})
        case _ if "forgetful" in MOODS and request["method"] != "server/discover":
            return
        case "tools/list":
            send({"id": number, "result": list_tools(request.get("params") or {})})
        case "tools/call":
            call(number, request["params"])
        case _:
            send({"id": number, "error": {"code": -32601, "message": "no such method"}})


def main() -> None:
    """Serve standard input until it ends, and longer if it is deaf."""
    if "deaf" in MOODS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "late" in MOODS:
        time.sleep(float(MOODS[-1]))
    if "child" in MOODS:
        print("child", subprocess.Popen(LONG_SLEEP, stdin=subprocess.DEVNULL).pid, file=sys.stderr, flush=True)
    if "orphan" in MOODS:
        between = "import subprocess, sys; print('child', subprocess.Popen(sys.argv[1:]).pid, file=sys.stderr, flush=True)"
        subprocess.run([sys.executable, "-c", between, *LONG_SLEEP], stdin=subprocess.DEVNULL, check=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message and "mute" not in MOODS:
            answer(message)
            if "flood" in MOODS and message["method"] == "tools/list":
                for step in range(5_000):
                    send({"method": "notifications/message", "params": {"level": "info", "data": f"{step} {'x' * 500}"}})
    while "deaf" in MOODS:
        time.sleep(1)


if __name__ == "__main__":
    main()
