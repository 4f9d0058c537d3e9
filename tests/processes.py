"""What a process has started and has not ended."""

import psutil


def children_running(module: str, parent: psutil.Process | None = None) -> list[psutil.Process]:
    """The children of ``parent`` (this process) that run a module whose name begins with ``module``."""
    return [each for each in (parent or psutil.Process()).children() if any(word.startswith(module) for word in _command(each))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it has ended; a zombie has no command line either
        return []
