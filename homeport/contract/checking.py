"""What the document must hold before it may be served. Every finding names file and line; one finding stops the start.

Uniqueness of operationIds is a security property: Connexion keeps operations by id, so that two paths with one id would silently share the
last one's credentials and handler.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from homeport.contract.loading import Bundle, ContractError, each_operation
from homeport.contract.operations import Resolver
from homeport.contract.routing import SegmentTable, TemplateClash

_OPERATION_ID = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_PERMISSION = re.compile(r"none|[a-z][a-z0-9_-]*([.:][a-z0-9_-]+)+")
_INFO_FUNCTIONS = {"apiKey": "x-apikeyInfoFunc", "http": "x-bearerInfoFunc"}

FindFunction = Callable[[str], object]


def check_bundle(bundle: Bundle, surfaces: Collection[str], find_function: FindFunction) -> None:
    """Raise ContractError with every problem found.

    ``surfaces`` are those that have an error body; ``find_function`` imports a dotted name and raises ImportError or AttributeError.
    """
    problems = list(_check(bundle, surfaces, find_function))
    if problems:
        raise ContractError("\n".join(problems))


def _check(bundle: Bundle, surfaces: Collection[str], find_function: FindFunction) -> Iterator[str]:
    document = bundle.document
    if not str(document.get("openapi", "")).startswith("3.0."):
        yield f"openapi.yaml:1: OpenAPI 3.0 is needed, this is {document.get('openapi')!r}"
    seen: dict[str, str] = {}
    table: SegmentTable[str] = SegmentTable()
    for path, method, operation in each_operation(document):

        def at(*below: str, path: str = path, method: str = method) -> str:
            return bundle.locate(path, method, *below)

        operation_id = operation.get("operationId")
        if not isinstance(operation_id, str) or not _OPERATION_ID.fullmatch(operation_id):
            yield f"{at('operationId')}: {method.upper()} {path} needs an operationId of the form surface.module.verb_noun"
            continue
        if operation_id in seen:
            yield f"{at('operationId')}: the operationId '{operation_id}' is already used by {seen[operation_id]}"
        seen.setdefault(operation_id, f"{method.upper()} {path}")
        if operation.get("x-surface") not in surfaces:
            yield f"{at()}: unknown surface {operation.get('x-surface')!r} (known: {', '.join(sorted(surfaces))})"
        yield from (f"{at(key)}: {problem}" for key, problem in _check_security(operation, document, find_function))
        yield from (f"{at()}: {problem}" for problem in _check_path_parameters(path, bundle, operation))
        try:
            find_function(f"handlers.{operation_id}")
        except (ImportError, AttributeError) as error:
            yield f"{at('operationId')}: no handler for '{operation_id}': {error}"
        try:
            table.add(path, method, operation_id)
        except TemplateClash as error:
            yield f"{at()}: the path '{path}' {error}"


def _check_security(operation: dict[str, Any], document: dict[str, Any], find_function: FindFunction) -> Iterator[tuple[str, str]]:
    permission = operation.get("x-permission")
    if not isinstance(permission, str) or not _PERMISSION.fullmatch(permission):
        yield "operationId", f"'{operation['operationId']}' needs an x-permission: a name such as 'activities.read', or 'none'"
    security = operation.get("security", document.get("security"))
    if security is None:
        yield "operationId", f"'{operation['operationId']}' states no security; write 'security: []' for a public operation"
        return
    if (not security or {} in security) and permission not in (None, "none"):
        yield "x-permission", "a public operation cannot demand a permission, nobody is known there"
    schemes = document.get("components", {}).get("securitySchemes", {})
    for name in {name for alternative in security for name in alternative}:
        scheme = schemes.get(name)
        if scheme is None:
            yield "security", f"the security scheme '{name}' is not declared"
            continue
        function = scheme.get(_INFO_FUNCTIONS.get(scheme.get("type"), ""))
        if function is None or (scheme["type"] == "http" and scheme.get("scheme") != "bearer"):
            yield "security", f"the security scheme '{name}' names no function that checks it"
            continue
        try:
            find_function(function)
        except (ImportError, AttributeError) as error:
            yield "security", f"the function '{function}' of the security scheme '{name}' does not resolve: {error}"


def _check_path_parameters(path: str, bundle: Bundle, operation: dict[str, Any]) -> Iterator[str]:
    resolve = Resolver(bundle.document)
    in_path = re.findall(r"\{([^}]*)\}", path)
    parameters = [resolve(each) for each in [*bundle.document["paths"][path].get("parameters", []), *operation.get("parameters", [])]]
    declared = {each["name"] for each in parameters if each["in"] == "path"}
    if len(set(in_path)) != len(in_path):
        yield f"the path '{path}' names a parameter twice"
    for name in declared.symmetric_difference(in_path):
        yield f"the path parameter '{name}' of '{path}' is {'declared but not in the path' if name in declared else 'not declared'}"
    for segment in path.split("/"):
        if "{" in segment and not re.fullmatch(r"\{[^{}]+\}", segment):
            yield f"in '{path}' a parameter must fill its whole segment"
