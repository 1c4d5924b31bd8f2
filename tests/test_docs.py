"""Code in the docs runs: each page's `python` blocks in one namespace, in a directory of their own; and all doctests.

Modules are imported by name for their doctests: `--doctest-modules` would import each a second time by its path.
"""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

from tailrace.tests.support.source import ROOT, sources

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")

WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_code_on_the_page_runs_and_runs_again(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    for _ in range(2):
        namespace: dict[str, object] = {"__name__": "__docs__"}
        for block in BLOCK.finditer(text):
            above = text.count("\n", 0, block.start(1))  # so that a traceback names the page's own lines
            exec(compile("\n" * above + block[1], str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = {match[1] for match in LINK.finditer(page.read_text(encoding="utf-8"))}
    assert [t for t in sorted(targets) if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("module", sorted(set(sources()) - {"tailrace.__main__"}))
def test_doctests(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0
