"""The contract compiler: a hand-written OpenAPI document in, everything that a request needs out.

    loading     the files of ``openapi/`` become one bundle that keeps its component names
    checking    the bundle is refused at start-up, naming file and line, when it cannot be served truthfully
    schemas     OpenAPI 3.0 schemas become compiled JSON Schema validators
    modern      the document becomes OpenAPI 3.1, for tools that want that
    changes     two bundles are compared: what would break for those who rely on the older one
    parameters  path, query, header and cookie parameters become decoders
    operations  each operation becomes one object with its validators, permission and statuses
    routing     all paths become one table over their segments

Nothing here knows HTTP servers or Connexion; ``homeport.http`` does.
"""

from homeport.contract.contract import Contract, load_contract
from homeport.contract.loading import CONTRACT_ROOT, ContractError
from homeport.contract.operations import Body, Operation

__all__ = ["CONTRACT_ROOT", "Body", "Contract", "ContractError", "Operation", "load_contract"]
