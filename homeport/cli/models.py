"""``homeport models``: model providers that this server can reach."""

import os
import sys
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.listed_providers import list_all, show_limits
from homeport.cli.running import end, with_home
from homeport.cli.writing import Json, Quiet, print_json, print_table, say

if TYPE_CHECKING:
    from homeport.cli.listed_providers import ListedProvider
    from homeport.home import Home
    from homeport.models import Limits, ProviderTest, Target

MAX_SHOWN_MODELS = 4
HOW_TO_ADD = """To chat, set a provider's key (such as OPENAI_API_KEY) for the server, start Ollama, or add a provider:

  homeport models add openai
  homeport models add local --base-url http://127.0.0.1:8000/v1"""

app = typer.Typer(help="Model providers that this server can reach.", no_args_is_help=True)

ProviderName = Annotated[str, typer.Argument(metavar="NAME", help="The provider's name.")]


class ForRole(StrEnum):
    """What a model is asked for."""

    CHAT = "chat"
    EMBEDDING = "embedding"


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(help="A well-known provider (openai, anthropic, gemini …), or a name of your own with --base-url.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="'openai' for whatever speaks OpenAI's protocol, else LiteLLM's name of the provider; known for well-known names."
        ),
    ] = None,
    base_url: Annotated[str | None, typer.Option(metavar="URL", help="Its address, such as http://127.0.0.1:8000/v1.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="VAR", help="Read its API key from this environment variable.")
    ] = None,
    api_key_stdin: Annotated[bool, typer.Option("--api-key-stdin", help="Read its API key from standard input.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model to offer; again for more. The first is its default. All when left out."),
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Have it answer chats that name neither a provider nor a model.")] = False,
    quiet: Quiet = False,
) -> None:
    """Add a provider. Its API key is stored encrypted; on a terminal it is asked for."""
    api_key = _read_key(name, api_key_env, is_stdin=api_key_stdin)
    added = with_home(
        lambda home: home.models.add_provider(name, kind=kind, base_url=base_url, api_key=api_key, models=model or (), is_default=default)
    )
    if quiet:
        return say(added.name)
    say(f"Added the provider '{added.name}'{' and made it the default' if default else ', which is the default' if added.active else ''}.")
    say(f"Try it: homeport models test {added.name}")


@app.command("list")
def list_providers(json: Json = False) -> None:
    """List providers and their models, the default first: what they are for, who answers by default, and limits. Each is asked."""
    providers = with_home(list_all, has_warnings=False)
    if json:
        return print_json(providers)
    if not providers:
        return say("There are no model providers.", HOW_TO_ADD)
    print_table(
        ["name", "kind", "from", "for", "default", "models", "limits", "address"],
        [
            [
                each.name,
                each.kind,
                each.source,
                ", ".join(each.roles) or "unknown",
                ", ".join([*each.default_for, *(f"fallback of {role}" for role in each.fallback_for)]),
                _show_models(each),
                "; ".join(map(show_limits, each.limits)) or "none",
                each.base_url or "its usual one",
            ]
            for each in providers
        ],
    )
    if silent := [each.name for each in providers if not each.roles]:
        say("", *(f"'{name}' gave no list of models. To see why: homeport models test {name}" for name in silent))
    if not any(each.models for each in providers):
        say("", HOW_TO_ADD)


@app.command("test")
def try_providers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The provider's name; all of them when left out.")] = None,
) -> None:
    """Try a provider, or all of them, and say what is wrong. Exit status 1 when one does not work."""

    async def work(home: "Home") -> "list[ProviderTest]":
        names = [name] if name else [each.name for each in await list_all(home)]
        return [await home.models.test_provider(each) for each in names]

    tests = with_home(work)
    if not tests:
        end(f"There are no model providers. {HOW_TO_ADD}")
    for each in tests:
        typer.echo(each.message, err=not each.works)
    if not all(each.works for each in tests):
        raise typer.Exit(1)


@app.command()
def default(
    target: Annotated[
        str | None, typer.Argument(metavar="PROVIDER[/MODEL]", help="Who answers when a request names neither a provider nor a model.")
    ] = None,
    fallback: Annotated[
        list[str] | None, typer.Argument(metavar="[FALLBACK]...", help="Who takes over when that fails, in this order.")
    ] = None,
    role: Annotated[ForRole, typer.Option("--for", help="What is asked of the model.")] = ForRole.CHAT,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was set.")] = False,
) -> None:
    """Set who answers a request that names neither a provider nor a model, and who takes over when that fails."""
    if (target is None) != reset:
        raise typer.BadParameter("name a provider, such as openai or openai/gpt-4o-mini, or give --reset alone.")

    async def work(home: "Home") -> "tuple[Target, ...]":
        from homeport.models import parse_target

        targets = [parse_target(each) for each in (target, *(fallback or ())) if each is not None]
        return await home.models.registry.set_route(role.value, targets)

    route = [str(each) for each in with_home(work)]
    if not route:
        return say(f"No default is set for {role.value} any more. Running servers follow within a few seconds.")
    more = f"; when it fails: {', '.join(route[1:])}" if route[1:] else ""
    say(f"'{route[0]}' is the default for {role.value} now{more}. Running servers follow within a few seconds.")


@app.command()
def limit(
    target: Annotated[str, typer.Argument(metavar="PROVIDER[/MODEL]", help="A provider as a whole, or one of its models.")],
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an answer may take.")] = None,
    retries: Annotated[int | None, typer.Option(help="How often a call is tried again after a failure that may pass; else once.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="How many calls may run at once, in each server process.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget its limits.")] = False,
    json: Json = False,
) -> None:
    """Limit how a provider or a model is called, or show its limits. What is not given stays as it was."""
    given = {"timeout_s": timeout, "retries": retries, "concurrency": concurrency}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if reset and changes:
        raise typer.BadParameter("--reset goes alone.")

    async def work(home: "Home") -> "Limits":
        from homeport.models import Limits, parse_target

        wanted, registry = parse_target(target), home.models.registry
        if reset:
            await registry.reset_limits(wanted)
        found = await registry.find_limits(wanted) or Limits(wanted.provider, wanted.model)
        return await registry.set_limits(replace(found, **changes)) if changes else found

    limits = with_home(work)
    if json:
        return print_json(limits)
    say(f"Limits of '{target}': {show_limits(limits, is_named=False)}." + (" Running servers follow soon." if changes or reset else ""))


@app.command()
def remove(name: ProviderName) -> None:
    """Remove a provider that was added, and its key."""
    with_home(lambda home: home.models.remove_provider(name))
    say(f"Removed the provider '{name}'. Running servers follow within a few seconds.")


def _read_key(name: str, variable: str | None, *, is_stdin: bool) -> str | None:
    """The key; never from an argument, which every user of the machine could read in the list of processes."""
    if variable and is_stdin:
        raise typer.BadParameter("--api-key-env and --api-key-stdin exclude each other.")
    if variable:
        if not (key := os.environ.get(variable, "").strip()):
            raise typer.BadParameter(f"The environment variable {variable} is not set or empty.", param_hint="--api-key-env")
        return key
    if is_stdin:
        if not (key := sys.stdin.readline().strip()):
            raise typer.BadParameter("Standard input holds no key.", param_hint="--api-key-stdin")
        return key
    if sys.stdin.isatty():
        return (
            typer.prompt(f"API key of {name} (not shown; Enter for none)", default="", show_default=False, hide_input=True).strip() or None
        )
    return None


def _show_models(provider: "ListedProvider") -> str:
    names = [*(each.id for each in (*provider.models, *provider.embedding_models)), *provider.speech_models]
    more = f" and {len(names) - MAX_SHOWN_MODELS} more" if len(names) > MAX_SHOWN_MODELS else ""
    return ", ".join(names[:MAX_SHOWN_MODELS]) + more if names else "none known"
