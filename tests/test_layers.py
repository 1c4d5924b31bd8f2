"""Who may import whom (docs/design.md, "Folders"), and the only doors to files, time and chance.

The tables below are the rules; each exception has its reason beside it, and one that is no longer needed fails.
"""

import ast

import pytest

from tailrace.tests.support.source import Import, find_cycle, folder_of, imports, python_files, sources

# What a folder may import besides itself. "" is the root: __init__.py, errors.py, … hand on names from the folders.
ALLOWED: dict[str, set[str]] = {
    "windows": set(),
    "log": set(),
    "state": {"log"},
    "streams": {"windows", "state", "log"},
    "server": {"log"},
    "cluster": {"log"},
    "connect": {"streams"},
    "cli": {"", "examples", "windows", "log", "state", "streams", "server", "cluster", "connect"},
    "": {"windows", "log", "state", "streams", "cli"},
    "examples": {""},
    "tests": {"", "examples", "windows", "log", "state", "streams", "server", "cluster", "connect", "cli"},
}

# Within two folders: a room imports those on the floors below it, and nothing beside it. A room is a folder, or a file
# beside the folders.
FLOORS = {
    "log": [
        ["errors", "clock", "partitioner", "record", "syncer"],
        ["disk", "codec", "topic", "waiting", "timers", "client"],
        ["arguments", "checkpoint", "records"],
        ["partition"],
        ["compaction", "groups"],
        ["topics"],
        ["transactions"],
        ["checking", "broker"],
        ["clients"],
        ["embedded"],
    ],
    "streams": [
        ["values"],
        ["program"],
        ["chain"],
        ["operators"],
        ["task"],
        ["commit"],
        ["surface", "planning"],
        ["running"],
        ["runner"],
        ["start"],
        ["reprocessing"],
        ["app"],
        ["keeping"],
        ["testing"],
    ],
}

# What a program outside would import; examples may name nothing else.
PUBLIC = {"tailrace", "tailrace.errors", "tailrace.testing", "tailrace.reducers"}

# The fluent surface: classes that return each other.
FLUENT = {
    f"tailrace.streams.surface.{name}"
    for name in ("stream", "table", "grouped", "grouped_table", "grouping", "cogrouped")
}

# Modules by which time, chance and files come in.
DOORS = {"time", "random", "secrets", "uuid", "shutil", "tempfile", "mmap", "fcntl", "glob", "pathlib", "io", "gzip"}
# What `os` offers without touching a file.
PURE_OS = {"fspath", "environ", "getpid", "sep", "cpu_count", "PathLike", "strerror", "kill", "name", "_exit"}
PURE_OS_PATH = {"join", "basename", "dirname", "split", "splitext", "sep", "normpath", "isabs", "relpath", "commonpath"}

# (module, door): why it stands there.
THROUGH_THE_DOOR: dict[tuple[str, str], str] = {
    ("tailrace.cli.lines", "gzip"): "`send` reads the user's files, not the log's",
    ("tailrace.cli.lines", "io"): "the same",
    ("tailrace.cli.lines", "pathlib"): "the same",
    ("tailrace.cli.demo", "pathlib"): "the demo clears the directory that it made the last time",
    ("tailrace.cli.demo", "shutil"): "the same",
    ("tailrace.cli.clicks", "random"): "the demo's clicks are made by chance, seeded by its caller",
    ("tailrace.examples.nexmark", "random"): "the same of its persons, auctions and bids",
    ("tailrace.cli.session", "os.O_WRONLY"): "a closed stdout is replaced, as Python's documentation has it",
    ("tailrace.cli.session", "os.devnull"): "the same",
    ("tailrace.cli.session", "os.dup2"): "the same",
    ("tailrace.cli.session", "os.open"): "the same",
    ("tailrace.log.topics.metadata", "uuid"): "a topic's id; whoever opens a log may hand in another source",
    ("tailrace.state.rocksdb", "pathlib"): "RocksDB's files are outside our disk: is the directory one of ours?",
}
IMPORTLIB: dict[str, str] = {
    "tailrace.log.client": "Log.open: the scheme of a URL chooses the engine",
    "tailrace.cli.commands": "--version is what the installer wrote down",
    "tailrace.cli.load": "MODULE:APP of the command line",
}


def test_every_folder_has_a_rule() -> None:
    assert {folder_of(name) for name in python_files()} <= set(ALLOWED)


def test_only_allowed_edges() -> None:
    known = python_files()
    wrong: list[str] = []
    for name, path in known.items():
        for edge in imports(path, known):
            if edge.module.startswith("."):
                wrong.append(f"{path}:{edge.line}: relative import; write it from tailrace on")
            elif edge.module.split(".")[0] == "tailrace" and not _allowed(name, edge):
                wrong.append(f"{path}:{edge.line}: {name} must not import {edge.module}")
    assert not wrong, "\n".join(wrong)


def _allowed(name: str, edge: Import) -> bool:
    here, there = folder_of(name), folder_of(edge.module)
    if here == "examples":
        return there == "examples" or edge.module in PUBLIC
    if name == "tailrace.__main__":
        return there == "cli"
    if here == "" and there == "cli":
        return False
    return here == there or there in ALLOWED[here]


def test_no_cycle_between_files() -> None:
    known = sources()
    graph = {name: {edge.module for edge in imports(path, known)} & set(known) for name, path in known.items()}
    assert find_cycle(_without_fluent_surface(graph)) == []


def _without_fluent_surface(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Edges among the three classes of the fluent surface are the one cycle that is allowed (for the type checkers)."""
    return {name: others - FLUENT if name in FLUENT else others for name, others in graph.items()}


def test_no_cycle_between_folders() -> None:
    known = sources()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        here = folder_of(name) or name
        there = {folder_of(edge.module) or edge.module for edge in imports(path, known) if edge.module in known}
        graph.setdefault(here, set()).update(there - {here})
    assert find_cycle(graph) == []


@pytest.mark.parametrize("folder", FLOORS)
def test_rooms_know_the_floors_below_them(folder: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS[folder]) for room in rooms}
    known = {name: path for name, path in sources().items() if name.startswith(f"tailrace.{folder}.")}
    edges = {
        (_room(name), _room(edge.module))
        for name, path in known.items()
        for edge in imports(path, known)
        if edge.module in known
    }
    assert {_room(name) for name in known} == set(floor), "name it in FLOORS"
    assert sorted((here, there) for here, there in edges if here != there and floor[here] <= floor[there]) == []


def _room(module: str) -> str:
    return module.split(".")[2]


def test_no_edge_hides_under_type_checking() -> None:
    known = python_files()
    wrong = [
        f"{path}: TYPE_CHECKING"
        for name, path in known.items()
        if name not in FLUENT | {__name__, "tailrace.tests.test_layers"}
        and any(
            isinstance(node, ast.Name | ast.Attribute | ast.alias) and "TYPE_CHECKING" in ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_the_fluent_surface_hides_only_itself() -> None:
    known = python_files()
    for name in FLUENT & set(known):
        for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                hidden = {
                    inner.module for part in node.body for inner in ast.walk(part) if isinstance(inner, ast.ImportFrom)
                }
                assert hidden <= FLUENT, f"{name} hides {hidden - FLUENT} under TYPE_CHECKING"


def test_files_time_and_chance_come_in_by_two_doors() -> None:
    """Only log/disk.py and log/clock.py touch them, so that tests can replace both; the rest is listed."""
    found = {
        (name, door)
        for name, path in sources().items()
        if name not in {"tailrace.log.disk", "tailrace.log.clock"}
        for door in _doors(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert sorted(found - set(THROUGH_THE_DOOR)) == [], "take a Disk or a Clock as an argument"
    assert sorted(set(THROUGH_THE_DOOR) - found) == [], "no longer needed: take it off the list"


def _doors(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & DOORS
        elif isinstance(node, ast.ImportFrom):
            if node.module in DOORS:
                found |= (
                    {node.module} if {alias.name for alias in node.names} - {"PurePath", "PurePosixPath"} else set()
                )
            elif node.module == "os":
                found |= {f"os.{alias.name}" for alias in node.names if alias.name not in PURE_OS | {"path"}}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
        elif isinstance(node, ast.Attribute):
            found |= _door_of_attribute(node)
    return found


def _door_of_attribute(node: ast.Attribute) -> set[str]:
    text = ast.unparse(node)
    if text.startswith("os.path."):
        return set() if text.split(".")[2] in PURE_OS_PATH else {text}
    if text.startswith("os.") and text != "os.path":
        return set() if text.split(".")[1] in PURE_OS else {text}
    return {text} if text in {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"} else set()


def test_modules_are_loaded_by_name_in_few_places() -> None:
    known = sources()
    found = {
        name
        for name, path in known.items()
        if any(edge.module.split(".")[0] == "importlib" for edge in imports(path, known))
    }
    assert found == set(IMPORTLIB)


def test_these_tests_see_what_they_look_for() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    source = "import time, os\nfrom pathlib import Path\nopen('x'), os.path.join('a'), os.path.exists('a'), os.read(0)"
    assert _doors(ast.parse(source)) == {"time", "pathlib", "open", "os.path.exists", "os.read"}
    assert not _allowed("tailrace.windows.tumbling", Import("tailrace.log.record", 1))
    assert not _allowed("tailrace.examples.click_counts", Import("tailrace.log.record", 1))
    assert _allowed("tailrace.examples.click_counts", Import("tailrace", 1))
    assert not _allowed("tailrace.streams.app", Import("tailrace.errors", 1))
