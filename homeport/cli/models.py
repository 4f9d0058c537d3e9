"""``homeport models``: model providers that this server can reach."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import end, with_home
from homeport.cli.writing import Json, Quiet, print_json, print_table, say

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.models import Provider, ProviderTest

MAX_SHOWN_MODELS = 4
HOW_TO_ADD = """Set a provider's key (such as OPENAI_API_KEY) for the server, start Ollama, or add a provider:

  homeport models add openai
  homeport models add local --base-url http://127.0.0.1:8000/v1"""

app = typer.Typer(help="Model providers that this server can reach.", no_args_is_help=True)

ProviderName = Annotated[str, typer.Argument(metavar="NAME", help="The provider's name.")]


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
    default: Annotated[bool, typer.Option("--default", help="Use it when a request names no provider.")] = False,
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
    """List providers and their models, the default first. Each is asked for its models."""
    providers = with_home(_all_providers, has_warnings=False)
    if json:
        return print_json(providers)
    if not providers:
        return say("There are no model providers.", HOW_TO_ADD)
    print_table(
        ["name", "kind", "from", "default", "models", "address"],
        [
            [each.name, each.kind, each.source, "yes" if each.active else "", _show_models(each), each.base_url or "its usual one"]
            for each in providers
        ],
    )
    if silent := [each.name for each in providers if not each.models]:
        say("", *(f"'{name}' gave no list of models. To see why: homeport models test {name}" for name in silent))


@app.command("test")
def try_providers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The provider's name; all of them when left out.")] = None,
) -> None:
    """Try a provider, or all of them, and say what is wrong. Exit status 1 when one does not work."""

    async def work(home: "Home") -> "list[ProviderTest]":
        names = [name] if name else [each.name for each in await _all_providers(home)]
        return [await home.models.test_provider(each) for each in names]

    tests = with_home(work)
    if not tests:
        end(f"There are no model providers. {HOW_TO_ADD}")
    for each in tests:
        typer.echo(each.message, err=not each.works)
    if not all(each.works for each in tests):
        raise typer.Exit(1)


@app.command()
def default(name: ProviderName) -> None:
    """Use this provider when a request names none."""
    with_home(lambda home: home.models.set_default_provider(name))
    say(f"'{name}' is the default now. Running servers follow within a few seconds.")


@app.command()
def remove(name: ProviderName) -> None:
    """Remove a provider that was added, and its key."""
    with_home(lambda home: home.models.remove_provider(name))
    say(f"Removed the provider '{name}'. Running servers follow within a few seconds.")


async def _all_providers(home: "Home") -> "list[Provider]":
    """What answers, with its models, and what is configured but gives none."""
    answering = await home.models.providers()
    names = {each.name for each in answering}
    return [*answering, *(each for each in await home.models.configured_providers() if each.name not in names)]


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


def _show_models(provider: "Provider") -> str:
    names = [model.id for model in provider.models]
    more = f" and {len(names) - MAX_SHOWN_MODELS} more" if len(names) > MAX_SHOWN_MODELS else ""
    return ", ".join(names[:MAX_SHOWN_MODELS]) + more if names else "none known"
