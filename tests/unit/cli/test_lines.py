"""Blocks of lines out of files, gzip and pipes."""

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.cli import lines as lines_module
from tailrace.cli.errors import CommandError, NotFoundError
from tailrace.cli.lines import Lines


def read(data: bytes) -> list[bytes]:
    source = Lines(io.BufferedReader(io.BytesIO(data)), "test", len(data))
    return [line for block in source.blocks() for line in block]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 20), st.booleans())
def test_the_lines_are_those_of_the_text(data: bytes, block: int, zipped: bool) -> None:
    if data[:3] == b"\xef\xbb\xbf" or data[:2] == b"\x1f\x8b":
        return
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "BLOCK_BYTES", block)
        assert read(gzip.compress(data) if zipped else data) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert read(b"\xef\xbb\xbfa\nb\n") == [b"a", b"b"]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "no_suffix"
    path.write_bytes(gzip.compress(b"one\ntwo"))
    source = Lines.open(str(path))
    assert [line for block in source.blocks() for line in block] == [b"one", b"two"]
    assert source.position == source.total_bytes
    source.close()


def test_damaged_gzip_says_so_after_what_was_read() -> None:
    whole = gzip.compress(b"a line\n" * 100_000)
    got: list[bytes] = []
    source = Lines(io.BufferedReader(io.BytesIO(whole[:-20])), "cut.gz", 1)
    with pytest.raises(CommandError, match=r"cut\.gz is a damaged gzip file"):
        got.extend(line for block in source.blocks() for line in block)
    assert got
    assert set(got) == {b"a line"}


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES_MAX", 1000)
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 100)
    with pytest.raises(CommandError, match="a line of more than 1,000 bytes"):
        read(b"x" * 5000)


def test_a_missing_file_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="there is no file nowhere/x"):
        Lines.open("nowhere/x")
