"""Tools: the MCP servers that give them, who may use which, and the registry through which every one is executed.

Tools       the registry: list, find, execute
McpServers  the servers that an operator has registered
ToolRules   who may use which tool: allow, ask or deny
"""

from adapters.mcp import McpTool, ProgressCallback, ToolOutput
from homeport.tools.builtin import BuiltinTool, ToolContext
from homeport.tools.checking import BUILTIN_SERVER
from homeport.tools.drafts import ServerDraft
from homeport.tools.offers import OfferedTool
from homeport.tools.permission import tool_permission
from homeport.tools.rule_store import ToolRules
from homeport.tools.rules import EVERYBODY, Decision, ToolRule, agent_subject, app_subject, parse_pattern
from homeport.tools.servers import McpServers, ServerImport
from homeport.tools.stored import McpServer, Provider, Transport, find_problem, read_servers
from homeport.tools.tools import ServerTest, Tools

__all__ = [
    "BUILTIN_SERVER",
    "EVERYBODY",
    "BuiltinTool",
    "Decision",
    "McpServer",
    "McpServers",
    "McpTool",
    "OfferedTool",
    "ProgressCallback",
    "Provider",
    "ServerDraft",
    "ServerImport",
    "ServerTest",
    "ToolContext",
    "ToolOutput",
    "ToolRule",
    "ToolRules",
    "Tools",
    "Transport",
    "agent_subject",
    "app_subject",
    "find_problem",
    "parse_pattern",
    "read_servers",
    "tool_permission",
]
