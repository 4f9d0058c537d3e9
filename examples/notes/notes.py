"""A local app: a page of notes that uses the official Python SDK. Homeport starts it, and tells it in the environment who it is."""

import asyncio
import html
import os
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from realtimex_sdk import ChatMessage, PermissionDeniedError, RealtimeXSDK, SDKConfig  # type: ignore[import-untyped]

MAX_BYTES = 64 * 1024
NEEDED = ["activities.read", "activities.write", "llm.chat", "webhook.trigger"]

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Notes</title>
<h1>Notes</h1>
<form method="post" action="/notes"><input name="text" required> <button>Keep</button></form>
<ul>{notes}</ul>
<form method="post" action="/ask"><input name="question" required> <button>Ask about them</button></form>
<form method="post" action="/file"><button>Have an agent file them</button></form>
<p>{answer}</p>
"""


async def list_notes(sdk: Any) -> list[str]:
    """The texts of all notes, newest first."""
    return [str(each["raw_data"].get("text", "")) for each in await sdk.activities.list()]


async def keep(sdk: Any, text: str) -> str:
    """Keep a note."""
    await sdk.activities.insert({"text": text})
    return "Kept."


async def ask(sdk: Any, question: str) -> str:
    """Ask a model about the notes."""
    notes = "\n".join(await list_notes(sdk))
    answer = await sdk.llm.chat([ChatMessage("system", f"Answer from these notes:\n{notes}"), ChatMessage("user", question)])
    return str(answer.content)


async def file(sdk: Any) -> str:
    """Hand the notes over as a task, for a person or an agent to take up."""
    task = await sdk.webhook.trigger_agent(raw_data={"title": "File my notes", "notes": await list_notes(sdk)})
    return f"Handed over as task {task.get('task_uuid')}."


class Page(BaseHTTPRequestHandler):
    """The page and its forms."""

    def do_GET(self) -> None:
        """Show the notes."""
        if self.path == "/health":
            return self.send(HTTPStatus.OK, "well")
        self.show(None)

    def do_POST(self) -> None:
        """Do what a form says. Pages of other origins may not."""
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return self.send(HTTPStatus.FORBIDDEN, "Use the page itself.")
        size = min(int(self.headers.get("Content-Length", 0)), MAX_BYTES)
        form = {name: values[0] for name, values in parse_qs(self.rfile.read(size).decode()).items()}
        match self.path:
            case "/notes":
                self.show(lambda sdk: keep(sdk, form.get("text", "")))
            case "/ask":
                self.show(lambda sdk: ask(sdk, form.get("question", "")))
            case "/file":
                self.show(file)
            case _:
                self.send(HTTPStatus.NOT_FOUND, "There is no such page.")

    @property
    def sdk(self) -> Any:
        """The SDK. It takes the app's id and name from RTX_APP_ID and RTX_APP_NAME."""
        return RealtimeXSDK(SDKConfig(url=os.environ.get("REALTIMEX_BASE_URL", "http://localhost:3001"), permissions=NEEDED))

    def show(self, work: Callable[[Any], Coroutine[Any, Any, str]] | None) -> None:
        """Do something and show the page, with what came of it."""

        async def render() -> str:
            sdk = self.sdk
            # Asks for what is not granted yet, and waits for a person; answers at once when all of it is.
            await sdk.register()
            answer = "" if work is None else await work(sdk)
            notes = "".join(f"<li>{html.escape(text)}</li>" for text in await list_notes(sdk))
            return PAGE.format(notes=notes, answer=html.escape(answer))

        try:
            self.send(HTTPStatus.OK, asyncio.run(render()))
        except PermissionDeniedError as error:
            self.send(HTTPStatus.FORBIDDEN, f"<p>Nobody has granted {html.escape(str(error.permission))} yet: homeport apps requests</p>")

    def send(self, status: HTTPStatus, page: str) -> None:
        """Answer with a page."""
        body = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve the page on the port that this app was given."""
    port = int(os.environ.get("RTX_PORT", "8080"))
    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        print(f"Notes are at http://127.0.0.1:{port}/", flush=True)  # noqa: T201 what Homeport shows as its log
        server.serve_forever()


if __name__ == "__main__":
    main()
