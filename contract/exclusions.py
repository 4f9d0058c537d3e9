"""What the contract run does not count as a failure: the check, the operations, the answer it must be, and why.

The list is short because each entry hides something. An entry excuses one answer of named operations, never a whole check, and the run
prints all of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One answer that is right although a check objects. ``text`` stands in the body of that answer and of no other."""

    check: str
    operations: tuple[str, ...]
    text: str
    reason: str


EMBEDDING = "local_apps.llm.create_embedding"
MODELS = ("local_apps.llm.create_chat", "local_apps.llm.stream_chat", EMBEDDING)
VECTORS = ("local_apps.vectors.upsert_vectors", "local_apps.vectors.query_vectors")
SPEECH = ("local_apps.tts.create_speech", "local_apps.tts.stream_speech")
TRANSCRIBE, LISTEN = "local_apps.stt.transcribe_audio", "local_apps.stt.listen"
TOOLS = (
    "admin.mcp_servers.approve_tools",
    "admin.mcp_servers.list_tools",
    "local_apps.mcp.execute_tool",
    "local_apps.mcp.list_tools",
)
PAGES = (
    "admin.agent_runs.list_runs",
    "admin.agent_sessions.list_sessions",
    "admin.agents.list_agents",
    "admin.api_keys.list_api_keys",
    "admin.approvals.list_approvals",
    "admin.apps.list_apps",
    "admin.events.list_events",
    "admin.grants.list_grants",
    "admin.mcp_servers.list_servers",
    "admin.mcp_servers.list_tools",
    "admin.models.list_limits",
    "admin.models.list_providers",
    "admin.permission_requests.list_permission_requests",
    "admin.tasks.list_tasks",
    "admin.tools.list_rules",
)
WEBHOOK = "local_apps.webhooks.receive_event"

EXCLUSIONS = (
    Exclusion(
        "not_a_server_error",
        MODELS,
        '"code":"LLM_ERROR"',
        "the stand-in for a model provider is asked to fail, and this is how the server has to tell it (502, 504)",
    ),
    Exclusion(
        "not_a_server_error",
        MODELS,
        '"code":"PROVIDER_UNAVAILABLE"',
        "the stand-in for a model provider is asked to refuse, and this is how the server has to tell it (503)",
    ),
    Exclusion(
        "positive_data_acceptance",
        PAGES,
        '"code":"invalid-cursor"',
        "a cursor is good for the list that it came from; no schema can say which texts are cursors",
    ),
    Exclusion(
        "positive_data_acceptance",
        (WEBHOOK,),
        '"code":"UNKNOWN_EVENT"',
        "events have older names, in any letter case; a schema that lists them all says nothing to people",
    ),
    *(
        Exclusion("positive_data_acceptance", (WEBHOOK,), text, "what an event needs depends on which it is; the schema is one for all")
        for text in ("With auto_run, say who", "Say which task this is about")
    ),
    *(
        Exclusion("positive_data_acceptance", (WEBHOOK,), text, "which addresses can be posted to, no schema can say")
        for text in ('"code":"URL_REFUSED"', '"code":"PRIVATE_ADDRESS"')
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.api_keys.create_api_key",),
        "expires_at has passed",
        "a key must expire in the future; a schema does not know what time it is",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.auth.sync_user_token",),
        '"code":"TOKEN_EXPIRED"',
        "a token may say that it has expired; a schema does not look into it",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.permissions.register_app", "local_apps.permissions.request_permission"),
        '"code":"MISSING_APP_ID"',
        "official clients send a null or empty app_id when they have none, and are told so with this code",
    ),
    Exclusion(
        "positive_data_acceptance",
        MODELS,
        '"code":"INVALID_MODEL"',
        "which models there are is known to the provider, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        MODELS,
        "is not configured. Configured:",
        "which providers are configured is known to the server, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        MODELS,
        "is longer than the model",
        "how much a model can take is known to the provider, not to the document",
    ),
    *(
        Exclusion(
            "positive_data_acceptance",
            (EMBEDDING, "local_apps.vectors.query_vectors"),
            text,
            "what a text amounts to is known to the model, not to the document",
        )
        for text in ("is empty. Leave it out.", "Split it into smaller texts")
    ),
    Exclusion(
        "positive_data_acceptance",
        (EMBEDDING,),
        "makes vectors of",
        "which dimensions a model can give its vectors is known to the model, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.models.register_provider",),
        "'native' names the embedding model",
        "one name is taken for good; a pattern that leaves it out would hide what the others are",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.vector_config.register_config",),
        '"code":"DATABASE_URL_INVALID"',
        "what may stand in a database URL is known to PostgreSQL's client library; no schema can say it",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.vector_config.register_config",),
        '"code":"PRIVATE_ADDRESS"',
        "every database that the run asks for is on this machine, where the server connects to none that its operator has not allowed",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.vector_config.register_config",),
        "config.databaseUrl must hold",
        "a database needs its URL, and the server's own needs none; the schema is one for both",
    ),
    *(
        Exclusion(
            "positive_data_acceptance", VECTORS, text, "a schema can bound a list of numbers, but not say what they amount to together"
        )
        for text in ("has no direction", "too large to be compared", "and the first vector has", '"code":"DIMENSION_MISMATCH"')
    ),
    Exclusion(
        "positive_data_acceptance",
        (*VECTORS, "local_apps.vectors.delete_vectors", "local_apps.ingest.create_ingest"),
        "cannot be stored (U+0000)",
        "metadata are any JSON; no schema can keep one character out at every depth",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.vectors.query_vectors", "local_apps.vectors.delete_vectors"),
        '"code":"NOTHING_ASKED"',
        "one of several fields is needed, and official clients send null for those that they leave out, which a schema cannot tell apart",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.ingest.create_ingest",),
        "/text: it ",
        "a text of blanks, or with U+0000 in it, has nothing to be embedded; a pattern that says so would be too slow for texts so long",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.ingest.create_ingest",),
        "The overlap must be 0 to half of the chunk's size",
        "how much may be repeated depends on the size of a chunk; a schema cannot compare two numbers",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("system.mcp.send_message",),
        '"jsonrpc":"2.0"',
        "what a message needs depends on the version of MCP that it speaks; the protocol says that, with errors of its own",
    ),
    *(
        Exclusion("positive_data_acceptance", SPEECH, text, "which voices and models there are is known to the server, not to the document")
        for text in ('"code":"INVALID_PROVIDER"', '"code":"INVALID_MODEL"', '"code":"INVALID_VOICE"', '"code":"INVALID_LANGUAGE"')
    ),
    Exclusion(
        "not_a_server_error",
        SPEECH,
        '"code":"PROVIDER_UNAVAILABLE"',
        "an engine that is not installed or has no voice is told apart from one that there is not, with what to do (503)",
    ),
    *(
        Exclusion(
            "positive_data_acceptance",
            (TRANSCRIBE, LISTEN),
            text,
            "what can listen on a machine is known to the server, not to the document",
        )
        for text in ('"code":"INVALID_PROVIDER"', '"code":"INVALID_MODEL"', '"code":"INVALID_LANGUAGE"')
    ),
    *(
        Exclusion("positive_data_acceptance", (TRANSCRIBE,), text, "which bytes are a sound, no schema can say")
        for text in ("The audio ", "this is not base64")
    ),
    Exclusion(
        "not_a_server_error",
        (TRANSCRIBE, LISTEN),
        "homeport speech pull",
        "a model that is not here yet is told apart from one that there is not, with how to fetch it (503)",
    ),
    Exclusion(
        "not_a_server_error",
        (LISTEN,),
        '"code":"MICROPHONE_UNAVAILABLE"',
        "most machines that run this have no microphone, and this is how the server has to tell it (503)",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("local_apps.mcp.execute_tool",),
        "body/arguments: ",
        "which arguments a tool takes is known to the server that gives it, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.mcp_servers.import_servers",),
        "The file ",
        "what a file of servers looks like, a schema of a text cannot say",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.mcp_servers.update_server",),
        "An MCP server with the transport",
        "a program has other fields than an address; what the server is, the request does not tell",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.mcp_servers.register_server", "admin.mcp_servers.update_server"),
        "is not a header that can be set",
        "a few names are taken for good; a pattern that leaves them out would hide what the others are",
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.tools.set_rule",),
        "names its server, too",
        "a tool belongs to a server; that one field needs another one, OpenAPI 3.0 can hardly say",
    ),
    *(
        Exclusion(
            "not_a_server_error",
            TOOLS,
            f'"code":"{code}"',
            "a server that the run has registered leads nowhere, and this is how it has to be told (503)",
        )
        for code in ("MCP_SERVER_UNAVAILABLE", "mcp-server-unavailable")
    ),
    Exclusion(
        "positive_data_acceptance",
        ("admin.agents.create_agent", "admin.agents.update_agent"),
        "Instructions have no character U+0000",
        "one character cannot be stored; a pattern that says so would be too slow for texts so long",
    ),
    Exclusion(
        "use_after_free",
        ("local_apps.ingest.get_ingest", "local_apps.ingest.cancel_ingest"),
        '"job":{',
        "a job that was cancelled stays on the record for seven days, as does one that had ended before",
    ),
    Exclusion(
        "use_after_free",
        ("admin.grants.list_grants", "admin.grants.reset_grants"),
        '"items":[',
        "forgetting all grants of an app empties their list; the list itself stays",
    ),
    Exclusion(
        "use_after_free",
        ("admin.api_keys.get_api_key", "admin.api_keys.revoke_api_key"),
        '"revoked_at":"',
        "a revoked key is useless but stays on the record, with the time at which it was revoked",
    ),
)
