"""The public surface is the contract's (tests/contract/tailrace.pyi), but for what one list says is still to come.

1. Every name that exists has exactly the contract's signature; ours may add keyword options with a default.
2. What does not exist yet stands in STILL_TO_COME and is not exported. The list is exact, so it can only shrink:
   what appears must be taken off, and what is on it must be missing.

`python -m tailrace.tests.test_api` prints the list as it should be; `--write` writes it here.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tailrace
from tailrace.tests.support.contract import CONTRACT, all_differences, public_names, signature, signature_differences
from tailrace.tests.support.shared import SHARED

# `Producer.begin`: not there yet. `App.__init__.threads`: an option that is not accepted yet. `Stream.join#2`: an
# overload that is not there yet. With a colon: there, and for now narrower than the contract, as it stands after the
# colon.
STILL_TO_COME: list[str] = [
    "Stream.map_async",
    "Events",
    "Agent",
    "Channel",
    "App.__init__.standbys",
    "App.agent",
    "App.channel",
    "App.timer",
    "App.crontab",
    "App.task",
    "App.on_start",
    "App.on_stop",
    "App.query",
    "App.run.close_windows",
    "App.main",
]  # fmt: skip


def test_what_exists_is_the_contract_and_the_rest_is_listed() -> None:
    differences = all_differences()
    assert sorted(set(differences) - set(STILL_TO_COME)) == [], "differs from the contract"
    assert sorted(set(STILL_TO_COME) - set(differences)) == [], "exists now: take it off the list"
    assert len(set(STILL_TO_COME)) == len(STILL_TO_COME)


def test_names_to_come_are_not_exported() -> None:
    for name, where in public_names().items():
        if name in STILL_TO_COME:
            assert not hasattr(tailrace, name), name
            assert name not in tailrace.__all__
        elif f"{where.removeprefix('tailrace.')}.{name}" not in STILL_TO_COME:
            assert hasattr(import_module(where), name), f"{where}.{name}"


def test_all_lists_what_is_exported() -> None:
    contract = {name for name, where in public_names().items() if where == "tailrace"} - set(STILL_TO_COME)
    assert contract <= set(tailrace.__all__)
    assert len(set(tailrace.__all__)) == len(tailrace.__all__)
    assert [name for name in tailrace.__all__ if not hasattr(tailrace, name)] == []


def test_the_contract_is_kept_as_it_was_given() -> None:
    given = SHARED / "spec" / "tailrace.pyi"
    if not given.is_file():
        pytest.skip("../shared is not here")
    assert CONTRACT.read_bytes() == given.read_bytes()


@pytest.mark.parametrize(
    ("want", "have", "differences"),
    [
        (
            "def f(a: int, *, b: str = ...) -> None: ...",
            "def f(a: 'int', *, b: str = 'x', c: int = 1) -> None: ...",
            [],
        ),
        ("def f(a: int | None) -> None: ...", "def f(a: None | int) -> None: ...", []),
        ("def f(a: int = 60_000) -> None: ...", "def f(a: int = 60000) -> None: ...", []),
        ("def f(a: Instant) -> None: ...", "def f(a: int | datetime) -> None: ...", []),
        ("def f(a: int) -> None: ...", "def f(a: str) -> None: ...", ["f.a: str"]),
        ("def f(*, a: int = 1) -> None: ...", "def f(*, a: int = 2) -> None: ...", ["f.a: int = 2"]),
        ("def f(a: int, b: int) -> None: ...", "def f(b: int, a: int) -> None: ...", ["f: b, a"]),
        ("def f(a: int) -> None: ...", "def f() -> int: ...", ["f.a", "f -> int"]),
        ("def f() -> None: ...", "def f(*, a: int) -> None: ...", ["f.a: not in the contract, and not additive"]),
        ("def f() -> None: ...", "async def f() -> None: ...", ["f: async def"]),
    ],
)
def test_the_comparison_sees_what_it_looks_for(want: str, have: str, differences: list[str]) -> None:
    read = [signature(_definition(text), "contract") for text in (want, have)]
    assert list(signature_differences("f", *read)) == differences


def _definition(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


def _lists_now() -> tuple[list[str], list[str]]:
    """What is simply missing, with what was narrower before and still is; and what is wrong."""
    differences = all_differences()
    listed = [line for line in differences if line in STILL_TO_COME or not (":" in line or "->" in line)]
    return listed, [line for line in differences if line not in listed]


def main() -> None:
    listed, wrong = _lists_now()
    rows = "".join(f'    "{line}",\n' for line in listed)
    if "--write" in sys.argv:
        path = Path(__file__)
        text = path.read_text(encoding="utf-8")
        before, rest = text.split("STILL_TO_COME: list[str] = [\n", 1)
        after = rest[rest.index("]  # fmt: skip") :]
        path.write_text(f"{before}STILL_TO_COME: list[str] = [\n{rows}{after}", encoding="utf-8")
    else:
        print(rows)
    for line in wrong:
        print(f"differs from the contract: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
