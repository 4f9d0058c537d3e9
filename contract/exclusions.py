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


CHATS = ("local_apps.llm.create_chat", "local_apps.llm.stream_chat")
PAGES = (
    "admin.api_keys.list_api_keys",
    "admin.apps.list_apps",
    "admin.grants.list_grants",
    "admin.permission_requests.list_permission_requests",
)

EXCLUSIONS = (
    Exclusion(
        "not_a_server_error",
        CHATS,
        '"code":"LLM_ERROR"',
        "the stand-in for a model provider is asked to fail, and this is how the server has to tell it (502, 504)",
    ),
    Exclusion(
        "not_a_server_error",
        CHATS,
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
        CHATS,
        '"code":"INVALID_MODEL"',
        "which models there are is known to the provider, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        CHATS,
        "is not configured. Configured:",
        "which providers are configured is known to the server, not to the document",
    ),
    Exclusion(
        "positive_data_acceptance",
        CHATS,
        "is longer than the model",
        "how much a model can take is known to the provider, not to the document",
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
