"""The languages: what each needs on the machine, how its client is generated and built, and how its story is told."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from clients.workshop import TOOLS, Workshop

# In make's short form, and not to be missing where CI is true.
NEEDED = ("python", "typescript")
JRE = "install a Java runtime, 11 or newer, for OpenAPI Generator"
JARS = ("/usr/share/java/httpmime.jar", "/usr/share/java/geronimo-annotation-1.3-spec.jar")
DEBIAN_JARS = "libhttpmime-java libgeronimo-annotation-1.3-spec-java"
IMPORT_ALL = """
import importlib, pkgutil, homeport_client
for module in pkgutil.walk_packages(homeport_client.__path__, "homeport_client."):
    importlib.import_module(module.name)
"""


@dataclass(frozen=True, slots=True)
class Language:
    """``needs`` names programs and files that must be there, each with how to get it. ``build`` ends with a client and a story that were
    compiled or checked for types; ``tell`` runs the story and returns what it printed, and is None where it cannot run."""

    generate: Callable[[Workshop], None]
    build: Callable[[Workshop], None]
    tell: Callable[[Workshop], str] | None
    needs: dict[str, str] = field(default_factory=dict)


def generate_python(shop: Workshop) -> None:
    """With openapi-python-client; of the whole document."""
    shop.begin()
    shop.run(
        "openapi-python-client", "generate", "--path", shop.whole, "--config", "config.yaml", "--output-path", "client", "--fail-on-warning"
    )


def build_python(shop: Workshop) -> None:
    """Import all of it, and check the types of the story."""
    shop.run("env", "PYTHONPATH=client", TOOLS / "python", "-c", IMPORT_ALL)
    shop.run(
        "env",
        "MYPYPATH=client",
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--python-executable",
        TOOLS / "python",
        "story.py",
    )


def tell_python(shop: Workshop) -> str:
    """With the environment of the generators, which has what the client imports."""
    return shop.run("env", "PYTHONPATH=client", TOOLS / "python", "story.py")


def generate_typescript(shop: Workshop) -> None:
    """With openapi-typescript, from the lock file."""
    shop.begin("node_modules")
    shop.run("npm", "ci", "--prefer-offline")
    shop.run("npx", "openapi-typescript", shop.document, "--output", "homeport.ts")


def build_typescript(shop: Workshop) -> None:
    """Check the types, strictly, and compile."""
    shop.run("npx", "tsc")


def tell_typescript(shop: Workshop) -> str:
    """With node."""
    return shop.run("node", "dist/story.js")


def generate_go(shop: Workshop) -> None:
    """With OpenAPI Generator."""
    shop.begin()
    shop.openapi_generator("go", shop.folder / "homeport", properties="packageName=homeport,withGoMod=false,enumClassPrefix=true")


def build_go(shop: Workshop) -> None:
    """Compile; the client imports nothing but Go's standard library."""
    shop.run("go", "vet", "./...")
    shop.run("go", "build", "-o", "story", ".")


def tell_go(shop: Workshop) -> str:
    """The program."""
    return shop.run(shop.folder / "story")


def generate_java(shop: Workshop) -> None:
    """With OpenAPI Generator, for the HTTP client of the JDK. It cannot make a union of a text and a list: those two become ``Object``."""
    shop.begin()
    shop.openapi_generator(
        "java",
        shop.folder / "client",
        *("--library", "native", "--schema-mappings", "ChatMessage_content=Object,EmbeddingRequest_input=Object"),
        properties="openApiNullable=false,invokerPackage=homeport,apiPackage=homeport.api,modelPackage=homeport.model",
    )


def build_java(shop: Workshop) -> None:
    """Compile all of it."""
    sources = shop.folder / "sources"
    sources.write_text("\n".join(str(file) for file in shop.folder.rglob("*.java")), encoding="utf-8")
    shop.run("javac", "-nowarn", "-d", "classes", "-classpath", _class_path(), f"@{sources}")


def tell_java(shop: Workshop) -> str:
    """With the JDK that compiled it."""
    return shop.run("java", "-classpath", _class_path("classes"), "Story")


def _class_path(*more: str) -> str:
    """Jackson, which is part of OpenAPI Generator's own program here and would come from Maven elsewhere; what Debian has besides."""
    (generator,) = TOOLS.parent.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
    return os.pathsep.join([*more, str(generator), *JARS])


LANGUAGES = {
    "python": Language(generate_python, build_python, tell_python),
    "typescript": Language(generate_typescript, build_typescript, tell_typescript, {"npm": "install Node.js 18 or newer"}),
    "go": Language(generate_go, build_go, tell_go, {"java": JRE, "go": "install Go 1.19 or newer: apt-get install golang-go"}),
    "java": Language(
        generate_java,
        build_java,
        tell_java,
        {"javac": "install a JDK, 17 or newer"} | dict.fromkeys(JARS, f"apt-get install {DEBIAN_JARS}"),
    ),
}
