"""The functions that the document names for its security schemes (``x-…InfoFunc``).

Each gets the credential's text, when there is one, and answers with a Principal, with None for "not mine", or raises Unauthorized for
"mine and bad". So several kinds of credential can stand side by side on one request, as the official clients
send them: an API key in ``Authorization`` or ``x-api-key``, an app id beside it, a person's own token in ``Authorization`` beside an
app id.
"""

from homeport.errors import Unauthorized
from homeport.http.exchange import Exchange
from homeport.identity import Identity, Principal
from homeport.key_text import looks_like_key

APP_ID_HEADER = b"x-app-id"


async def bearer(token: str, exchange: Exchange, identity: Identity) -> Principal | None:
    """An API key as ``Authorization: Bearer``. Any other token belongs to somebody else (a signed-in person's, say) and is passed over."""
    if not looks_like_key(token):
        return None
    return await identity.authenticate_key(token, _app_id(exchange))


async def api_key_header(key: str, exchange: Exchange, identity: Identity) -> Principal | None:
    """An API key as ``x-api-key``. Nothing but a key belongs in this header."""
    principal = await identity.authenticate_key(key, _app_id(exchange)) if looks_like_key(key) else None
    if principal is None:
        raise Unauthorized("The API key is not valid (unknown, revoked or expired).", code="INVALID_API_KEY")
    return principal


async def app_id(value: str, exchange: Exchange, identity: Identity) -> Principal | None:
    """A registered app's id as ``X-App-Id``."""
    principal = await identity.authenticate_app(value)
    if principal is None:
        raise Unauthorized(f"Invalid app ID: {value[:100]}", code="INVALID_APP_ID")
    return principal


def refuse(scheme_names: frozenset[str], exchange: Exchange) -> Unauthorized:
    """The error of a request that none of the operation's schemes recognised. The two sentences for apps are the reference's own."""
    if has_token(exchange):
        return Unauthorized("The API key is not valid (unknown, revoked or expired).", code="INVALID_API_KEY")
    if "appId" in scheme_names:
        return Unauthorized("Missing required header: x-app-id", code="MISSING_APP_ID")
    return Unauthorized("Send an API key as 'Authorization: Bearer <key>' or 'x-api-key: <key>'.")


def has_token(exchange: Exchange) -> bool:
    """Whether ``Authorization`` carries anything, an API key or not."""
    return bool(exchange.headers.get(b"authorization", b"").partition(b" ")[2].strip())


def _app_id(exchange: Exchange) -> str | None:
    return exchange.headers.get(APP_ID_HEADER, b"").decode("latin-1").strip() or None
