"""``python -m homeport.contract check``: is the document valid OpenAPI, and can it be served? ``… bundle`` prints it as one JSON file."""

import sys

import orjson
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from homeport.contract import ContractError, load_contract
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES


def main(arguments: list[str]) -> int:
    """Run one of the two commands; the exit code says whether the document is good."""
    if arguments not in (["check"], ["bundle"]):
        print("usage: python -m homeport.contract check|bundle", file=sys.stderr)
        return 2
    try:
        contract = load_contract(surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)
        document = orjson.loads(contract.published.content)
        validate(document)
    except (ContractError, OpenAPIValidationError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments == ["bundle"]:
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return 0
    counts = ", ".join(
        f"{surface} {sum(each.surface == surface for each in contract.operations.values())}" for surface in contract.surfaces
    )
    print(f"the contract holds: {len(contract.operations)} operations ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
