"""`MODULE:APP`, and `describe` of what it names."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.cli.load import load_app
from tailrace.cli.main import main

SHOP = """
from tailrace import App
app = App("shop")
app.stream(app.topic("in", key=str, value=int)).to(app.topic("out", key=str, value=int))
other = App("other")
number = 7
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory of the test's own; what is loaded from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return code, captured.err.removeprefix("error: ").rstrip()


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("shop_a", "shop"),
        ("shop_a:app", "shop"),
        ("shop_a:other", "other"),
        ("shop_a.py", "shop"),
        ("./shop_a.py:other", "other"),
    ],
)
def test_an_app_is_found_in_the_current_directory(here: Path, target: str, name: str) -> None:
    write(here, "shop_a.py", SHOP)
    assert load_app(target).name == name


def test_an_app_is_found_inside_a_package_and_inside_an_object(here: Path) -> None:
    write(here, "shop_pkg/__init__.py", "")
    write(here, "shop_pkg/main.py", SHOP + "\nclass Holder:\n    inner = other\n")
    assert load_app("shop_pkg.main").name == "shop"
    assert load_app("shop_pkg/main.py:Holder.inner").name == "other"


def test_what_is_missing_is_not_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "shop_b.py", SHOP)
    code, message = error_of(capsys, "describe", "no_such_module:app")
    assert (code, message.split(";")[0]) == (3, "there is no module no_such_module here or on the path")
    code, message = error_of(capsys, "describe", "shop_b:ap")
    assert (code, message) == (3, "the module shop_b has no ap; it has the app app")


def test_what_is_no_app_is_usage(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "shop_c.py", SHOP)
    code, message = error_of(capsys, "describe", "shop_c:number")
    assert (code, message) == (2, "shop_c:number is a int, not a tailrace App; it has the app app and other")
    assert error_of(capsys, "describe", "not a module")[0] == 2


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("x = 1\nif x\n", 2, "SyntaxError"),
        ("\n\n1 / 0\n", 3, "ZeroDivisionError"),
        ("import not_installed_anywhere\n", 1, "ModuleNotFoundError"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
    ],
)
def test_a_broken_module_is_the_users_by_file_and_line(
    here: Path, capsys: pytest.CaptureFixture[str], source: str, line: int, what: str
) -> None:
    write(here, "broken.py", source)
    code, message = error_of(capsys, "describe", "broken")
    sys.modules.pop("broken", None)
    assert code == 1
    assert message.startswith(f"{here}/broken.py:{line}: {what}")


def test_a_program_that_cannot_be_built_names_its_places(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "twice.py", SHOP + 'app.topic("in", key=str, value=str)\n')
    code, message = error_of(capsys, "describe", "twice")
    assert code == 1
    assert "twice.py:4" in message
    assert "twice.py:7" in message


def test_describe_prints_text_json_and_mermaid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "shop_d.py", SHOP)
    assert main(["describe", "shop_d"]) == 0
    assert capsys.readouterr().out.startswith("App: shop\n")
    assert main(["--json", "describe", "shop_d"]) == 0
    assert json.loads(capsys.readouterr().out)["app"] == "shop"
    assert main(["describe", "shop_d", "--mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart")
