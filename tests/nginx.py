"""nginx in front of several servers, configured as docs/scaling.md says: the tests and the bench run what people copy."""

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from homeport.http.serving import bind
from tests.system_packages import require_package

GUIDE = Path(__file__).parents[1] / "docs" / "scaling.md"
START_LIMIT_S = 20
# Instead of the nginx.conf of the package: it runs in the foreground, as a child of a test's own, and writes into one folder only.
FRAME = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes {workers};
worker_rlimit_nofile 8192;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
{site}
}}
"""


def published_site() -> str:
    """The configuration that docs/scaling.md tells people to copy: the block of ``nginx``, whole."""
    found = re.findall(r"^```nginx\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, "docs/scaling.md has one configuration of nginx"
    return str(found[0])


def site_for(listen: Sequence[str], ports: Sequence[int]) -> str:
    """The published configuration, with the addresses to listen at and the ports of the servers put in place of the example's."""
    site, listens = re.subn(r"^( +)listen .*;$", "".join(f"\\1listen {each};\n" for each in listen), published_site(), flags=re.MULTILINE)
    lines = re.findall(r"^ +server 127\.0\.0\.1:\d+;.*\n", site, re.MULTILINE)
    assert (listens, len(lines)) == (1, 2), "the example listens at one address and names two servers"
    servers = "".join(re.sub(r":\d+;", f":{port};", lines[0]) for port in ports)
    return site.replace("".join(lines), servers)


@contextmanager
def running_nginx(folder: Path, ports: Sequence[int], *, workers: int = 1) -> Iterator[int]:
    """nginx before the servers on these ports of 127.0.0.1, for as long as the block runs; gives the port at which it listens.

    Debian's nginx-light is installed if need be. ``folder`` is made, for its configuration, its log and what it keeps for the moment.
    """
    if shutil.which("nginx", path=_PATH) is None:
        require_package("nginx-light")
    folder.mkdir()
    sockets = bind("localhost", 0)  # finds a port that is free in both loopback families
    addresses = [each.getsockname()[:2] for each in sockets]
    for each in sockets:
        each.close()
    listen = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]
    # Started by root, nginx would work as another user, who cannot write here.
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(FRAME.format(folder=folder, workers=workers, user=user, site=site_for(listen, ports)), encoding="utf-8")
    log = folder / "error.log"
    command = [shutil.which("nginx", path=_PATH) or "nginx", "-p", str(folder), "-c", str(config), "-e", str(log)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_until_running(process, folder / "nginx.pid", log)
        yield int(addresses[0][1])
    finally:
        process.terminate()
        process.wait(START_LIMIT_S)


_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where Debian keeps it; not on everybody's path


def _wait_until_running(process: "subprocess.Popen[bytes]", pid_file: Path, log: Path) -> None:
    """nginx writes its number when it listens, before its workers start; connections wait for them."""
    deadline = time.monotonic() + START_LIMIT_S
    while not pid_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nginx did not start:\n{log.read_text(encoding='utf-8') if log.exists() else ''}")
        time.sleep(0.01)
