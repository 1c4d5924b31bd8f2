"""What a reader of the source may rely on: files of one thought, no leftovers, no check silenced without a word."""

import re

from tailrace.tests.support.source import python_files, sources

LINES_MAX = 600
# Longer, and why.
LONG: dict[str, str] = {
    "tailrace.log.client": "the interface in one place, most of it the words that say what it does",
}

LEFTOVER = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
# What is silenced, then the reason in words: on the line, or in a comment above it.
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)(?P<rest>.*)$")
CODES = re.compile(r"^\s*(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|\[[^\]]*\])?")
WORDS = re.compile(r"[A-Za-z']+ [A-Za-z']+")


def test_files_are_rooms_and_not_halls() -> None:
    long = {name for name, path in python_files().items() if len(path.read_text("utf-8").splitlines()) > LINES_MAX}
    assert long == set(LONG)


def test_nothing_is_left_over() -> None:
    this = "tailrace.tests.test_tidy"
    found = [
        f"{path}:{number}"
        for name, path in python_files().items()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if name != this and LEFTOVER.search(line)
    ]
    assert found == []


def test_a_silenced_check_has_its_reason() -> None:
    """In what is installed; a test that makes a mistake on purpose has said why in its name."""
    found: list[str] = []
    for path in sources().values():
        lines = path.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            match = SILENCED.search(line)
            if match:
                above = number > 1 and lines[number - 2].lstrip().startswith("#")
                if not above and not WORDS.search(CODES.sub("", match["rest"])):
                    found.append(f"{path}:{number}: {line.strip()}")
    assert found == [], "\n".join(found)
