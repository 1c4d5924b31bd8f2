"""What is installed is what is here: the packaging lists name every file and folder, and the version stands once."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tailrace.tests.support.source import ROOT, sources


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_names_every_file_and_folder_of_the_root() -> None:
    here = {path.name for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("[!.]*/__init__.py")}
    listed: set[str] = set(_pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    assert listed == here | {"py.typed"}


def test_every_folder_of_the_package_says_what_it_is() -> None:
    for name in _pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        for folder in [ROOT / name, *(ROOT / name).rglob("*/")]:
            if folder.is_dir() and folder.name != "__pycache__":
                assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_the_version_stands_in_one_place() -> None:
    version = _pyproject()["project"]["version"]
    again = [name for name, path in sources().items() if f'"{version}"' in path.read_text(encoding="utf-8")]
    assert again == [], "ask importlib.metadata for it"


def test_the_command_and_the_module_are_one() -> None:
    assert _pyproject()["project"]["scripts"] == {"tailrace": "tailrace.cli.main:main"}
    assert "from tailrace.cli.main import main" in (ROOT / "__main__.py").read_text(encoding="utf-8")


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()


def test_a_wheel_built_from_an_sdist_is_the_package(tmp_path: Path) -> None:
    """As an installer does that has only the archive: no git, no link, another folder's name."""
    pytest.importorskip("hatchling")
    _build(ROOT, "sdist", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    _build(unpacked, "wheel", tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name.removeprefix("tailrace/") for name in wheel.namelist() if name.startswith("tailrace/")}
    ours = {str(path.relative_to(ROOT)) for path in sources().values()}
    assert inside == ours | {"py.typed"}


def _build(source: Path, kind: str, into: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
