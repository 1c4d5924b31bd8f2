"""The package's own source, for the tests that look at it: files by module name, and what they import.

1. A module is named as it is imported, `tailrace.log.record`; a package by its folder, `tailrace.log`.
2. Every import counts, also one inside a function: it is an edge for whoever reads the code.

Not here: what is allowed (the tests say).
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"build", "dist", "node_modules", "__pycache__"}


class Import(NamedTuple):
    """One edge, with the line that makes it."""

    module: str
    line: int


def python_files() -> dict[str, Path]:
    """All Python files of the checkout by module name; nothing hidden, nothing built."""
    return {module_name(path): path for path in sorted(_walk(ROOT))}


def sources() -> dict[str, Path]:
    """The files that are installed: all but the tests."""
    return {name: path for name, path in python_files().items() if folder_of(name) != "tests"}


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in SKIPPED:
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.suffix == ".py":
            yield path


def module_name(path: Path) -> str:
    """`log/record.py` is `tailrace.log.record`, `log/__init__.py` is `tailrace.log`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tailrace", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def folder_of(module: str) -> str:
    """The folder at the top that a module belongs to; "" for the files of the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else ""


def imports(path: Path, known: dict[str, Path]) -> list[Import]:
    """Everything that a file imports, ours by module: `from tailrace.log import record` is `tailrace.log.record`."""
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")), known))


def _imports(tree: ast.AST, known: dict[str, Path]) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in known else base, node.lineno)


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of the graph, as the names on the way round; [] if there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for other in sorted(graph.get(name, ())):
            if cycle := visit(other):
                return cycle
        path.pop()
        done.add(name)
        return []

    for name in sorted(graph):
        if cycle := visit(name):
            return cycle
    return []
