"""How the run treats the launcher: it may draw any command, and the server would run it. So whatever can be started is a program that
does nothing, and its page is where nobody is. What is meant to be wrong stays wrong."""

import shutil
from typing import Any, cast

from schemathesis import Case

Json = dict[str, Any]

HARMLESS: Json = {"command": shutil.which("sleep") or "/bin/sleep", "args": ["600"], "working_dir": None}
# The id that the document's examples have: so there is an app that what is done with apps can be done with. Another one is there to lose
# its grants, and a third to be removed.
SPARE_APP, BARE_APP, DOOMED_APP = (f"0190b49f-3c4d-7e5f-8a6b-7c8d9e0f1a2{end}" for end in "bcd")
NOWHERE = "http://127.0.0.1:1/"


def keep_apps(case: Case[Any], operation: str, *, is_right: bool) -> None:
    """Change a request to an operation on apps before it is sent. ``is_right``: its body is what the operation takes."""
    names, body = case.path_parameters, cast(Any, case.body)
    if operation == "remove_app" and names.get("app_id") in (SPARE_APP, BARE_APP):
        names["app_id"] = DOOMED_APP
    if operation == "reset_grants" and names.get("app_id") == SPARE_APP:
        names["app_id"] = BARE_APP
    if is_right and operation in ("register_app", "update_app") and isinstance(body, dict) and "launch" in body:
        launch = {name: value for name, value in body["launch"].items() if name not in ("health_path", "env")}
        case.body = body | {"launch": launch | HARMLESS | ({"home_url": NOWHERE} if "home_url" in launch else {})}
