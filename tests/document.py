"""The contract as the server loads it, read once for all tests of a process."""

from typing import Any

from homeport.contract import Contract, load_contract
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES

CONTRACT: Contract = load_contract(surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)
DOCUMENT: dict[str, Any] = CONTRACT.bundle.document
