"""A local app in plain Python that behaves as it is told: ``python -S local_app.py MOOD …``.

(none)    serves a page on RTX_PORT that tells its environment
mute      listens and never answers
crash     writes a line and ends with status 3
deaf      does not end when it is told to
child     has a child in its group that does not hear, and one that left the group; tells their numbers
flood     writes as fast as it can
plain     writes a line and sleeps; listens nowhere
"""

import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler

MOODS = sys.argv[1:]
LONG_SLEEP = [sys.executable, "-S", "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]


class Page(BaseHTTPRequestHandler):
    """Tells the environment and its own number."""

    def do_GET(self) -> None:
        """Answer."""
        if "mute" in MOODS:
            time.sleep(600)
        body = json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingTCPServer):
    """As Python programs listen."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Behave."""
    print("hello", flush=True)
    if "deaf" in MOODS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in MOODS:
        for detached in (False, True):
            print("child", subprocess.Popen(LONG_SLEEP, start_new_session=detached).pid, flush=True)
    if "crash" in MOODS:
        sys.exit(3)
    while "flood" in MOODS:
        os.write(1, b"x" * 99 + b"\n")
    if "plain" in MOODS:
        time.sleep(600)
    with Server(("127.0.0.1", int(os.environ["RTX_PORT"])), Page) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
