"""Programs that run beside the server: started in a session of their own, their log kept, ended with everything they have started."""

from adapters.processes.asking import ask_status
from adapters.processes.leftovers import end_leftovers
from adapters.processes.log import ProcessLog, follow_log, log_path, remove_log, tail_log
from adapters.processes.ports import is_port_free
from adapters.processes.program import NotStarted, Program, describe_exit, see_through, why_not_started
from adapters.processes.tree import ProcessTree

__all__ = [
    "NotStarted",
    "ProcessLog",
    "ProcessTree",
    "Program",
    "ask_status",
    "describe_exit",
    "end_leftovers",
    "follow_log",
    "is_port_free",
    "log_path",
    "remove_log",
    "see_through",
    "tail_log",
    "why_not_started",
]
