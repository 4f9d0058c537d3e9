"""``python -m homeport.contract check``: is the document valid OpenAPI, and can it be served? ``… bundle`` prints it as one JSON file.

``… freeze`` keeps that file as the contract of the release: from then on, whatever would break its clients is found by a test.
"""

import sys

import orjson
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from homeport.contract import CONTRACT_ROOT, ContractError, load_contract
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES

COMMANDS = ("check", "bundle", "freeze")
# In a checkout; a package has no released bundles.
RELEASED = CONTRACT_ROOT / "released" / "openapi.json"


def main(arguments: list[str]) -> int:
    """Run one of the commands; the exit code says whether the document is good."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"usage: python -m homeport.contract {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        contract = load_contract(surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)
        document = orjson.loads(contract.published.content)
        validate(document)
    except (ContractError, OpenAPIValidationError) as error:
        print(error, file=sys.stderr)
        return 1
    # With indentation, so that a diff shows what a release changes.
    bundle = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    match arguments[0]:
        case "bundle":
            sys.stdout.buffer.write(bundle)
        case "freeze":
            RELEASED.parent.mkdir(exist_ok=True)
            RELEASED.write_bytes(bundle)
            print(f"frozen as the contract of {document['info']['version']}: {RELEASED}")
        case _:
            counts = ", ".join(
                f"{surface} {sum(each.surface == surface for each in contract.operations.values())}" for surface in contract.surfaces
            )
            print(f"the contract holds: {len(contract.operations)} operations ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
