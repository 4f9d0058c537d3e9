"""MCP servers: started on demand, kept warm, spoken to through the ``mcp`` library, ended with everything they have started.

Use ``McpSessions``: one a process of Homeport, made in ``homeport/home.py``. ``list_tools`` and ``call`` start the server when it does not
run; ``run`` is background work that ends idle ones; ``close`` ends all. The other names are the values that go in and come out. Importing
this costs nothing: the library (0.7 s, 60 MB) is loaded with the first server. The log of a server is read with ``adapters.processes``.
"""

from adapters.mcp.sessions import McpSessions
from adapters.mcp.spec import HttpTarget, ServerSpec, SessionState, SessionStatus, StdioTarget
from adapters.mcp.tools import McpTool, ProgressCallback, ToolOutput

__all__ = [
    "HttpTarget",
    "McpSessions",
    "McpTool",
    "ProgressCallback",
    "ServerSpec",
    "SessionState",
    "SessionStatus",
    "StdioTarget",
    "ToolOutput",
]
