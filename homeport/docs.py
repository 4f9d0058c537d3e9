"""The API browser: Swagger UI from its package, pointed at this server's own documents. Nothing is loaded from anywhere else."""

import functools
from pathlib import Path

import orjson

from homeport.contract import Contract
from homeport.contract.contract import PublishedDocument, strong_etag
from homeport.errors import NotFound

# Swagger UI writes style attributes; scripts come from files only.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Homeport API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/swagger-ui-standalone-preset.js"></script>
<script src="/docs/assets/start.js"></script>
</body>
</html>
"""
_MEDIA_TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


def read_asset(name: str, contract: Contract) -> PublishedDocument:
    """One file of the API browser. Raises NotFound for any other name."""
    if name == "start.js":
        return _start_script(contract)
    if name not in _MEDIA_TYPES:
        raise NotFound(f"The API browser has no file '{name[:80]}'.")
    return _package_file(name)


def find_document(contract: Contract, name: str) -> PublishedDocument:
    """The document of one surface by its file name, ``local_apps.json``. Raises NotFound naming those that exist."""
    document = contract.published_surfaces.get(name.removesuffix(".json")) if name.endswith(".json") else None
    if document is None:
        known = ", ".join(f"{surface}.json" for surface in contract.surfaces)
        raise NotFound(f"There is no document '{name[:80]}'; there are: {known}.")
    return document


@functools.cache
def _package_file(name: str) -> PublishedDocument:
    import swagger_ui_bundle

    content = (Path(swagger_ui_bundle.swagger_ui_path) / name).read_bytes()
    return PublishedDocument(content, _MEDIA_TYPES[name], strong_etag(content))


def _start_script(contract: Contract) -> PublishedDocument:
    documents = [{"name": "everything", "url": "/openapi.json"}]
    documents += [{"name": surface, "url": f"/openapi/{surface}.json"} for surface in contract.surfaces]
    options = {"dom_id": "#swagger-ui", "urls": documents, "deepLinking": True, "persistAuthorization": False, "validatorUrl": None}
    content = (
        b"window.ui = SwaggerUIBundle({..." + orjson.dumps(options) + b",\n"
        b"  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset], layout: 'StandaloneLayout'});\n"
    )
    return PublishedDocument(content, "text/javascript", strong_etag(content))
