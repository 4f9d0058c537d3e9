"""The contract as clients get it, and the API browser. All of it carries an ETag, so that asking again costs nothing."""

import asyncio

from homeport.contract import Contract
from homeport.contract.contract import PublishedDocument
from homeport.docs import CONTENT_SECURITY_POLICY, PAGE, find_document, read_asset
from homeport.replies import Reply


def _send(document: PublishedDocument, if_none_match: str | None) -> Reply:
    headers = {"ETag": document.etag, "Cache-Control": "no-cache"}
    known = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    if document.etag in known or "*" in known:
        return Reply(status=304, headers=headers)
    return Reply(document.content, headers=headers, media_type=document.media_type)


async def get_document_json(contract: Contract, if_none_match: str | None = None) -> Reply:
    return _send(contract.published, if_none_match)


async def get_modern_document(contract: Contract, if_none_match: str | None = None) -> Reply:
    return _send(contract.published_31, if_none_match)


async def get_document_yaml(contract: Contract, if_none_match: str | None = None) -> Reply:
    # Writing YAML takes a while the first time.
    return _send(await asyncio.to_thread(lambda: contract.published_yaml), if_none_match)


async def get_surface_document(contract: Contract, name: str, if_none_match: str | None = None) -> Reply:
    return _send(find_document(contract, name), if_none_match)


async def show_docs() -> Reply:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
    return Reply(PAGE, headers=headers, media_type="text/html; charset=utf-8")


async def show_swagger() -> Reply:
    return await show_docs()


async def get_docs_asset(contract: Contract, name: str, if_none_match: str | None = None) -> Reply:
    return _send(read_asset(name, contract), if_none_match)
