"""`MODULE:APP`: the user's app, looked for in the current directory first.

1. Only what the command line names is loaded; its own imports find their neighbours in the current directory.
2. What is not there is told from what is broken: a missing module or attribute is "not found" (3), an exception while
   it loads is the user's own, with file and line (1).
"""

import difflib
import importlib
import sys
from types import ModuleType
from typing import Any

from tailrace import App
from tailrace.cli.errors import NotFoundError, UsageError


def load_app(target: str) -> App:
    """Load an app.

    Args:
        target: `MODULE:APP`; APP is `app` unless given. A file's path (`shop/main.py`) stands for its module.

    Raises:
        UsageError: not of that form, or what it names is no App.
        NotFoundError: there is no such module or attribute.
        Exception: whatever the module raises while it is loaded.
    """
    path, _, attribute = target.partition(":")
    name = _module_name(path, target)
    attribute = attribute or "app"
    module = _import(name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NotFoundError(f"the module {name} has no {attribute}{_apps_in(module, attribute)}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise UsageError(
            f"{name}:{attribute} is a {type(found).__name__}, not a tailrace App{_apps_in(module, attribute)}"
        )
    return found


def _module_name(path: str, target: str) -> str:
    name = path.removeprefix("./").removesuffix(".py").replace("/", ".") if path.endswith(".py") else path
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{target!r} is not MODULE:APP, such as shop:app for the object `app` in shop.py")
    return name


def _import(name: str) -> ModuleType:
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for, or a package on the way to it, is "not found"; a missing import inside it
        # is the user's own error.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise NotFoundError(
                f"there is no module {name} here or on the path; it is looked for from the current directory"
            ) from error
        raise


def _apps_in(module: ModuleType, wanted: str) -> str:
    apps: list[str] = [name for name, value in vars(module).items() if isinstance(value, App)]
    near = difflib.get_close_matches(wanted, apps, n=3) or apps
    return f"; it has the app {' and '.join(near)}" if near else "; it has no App at all"
