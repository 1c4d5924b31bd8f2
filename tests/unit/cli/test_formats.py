"""From lines to values, keys and times."""

import csv
import io
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.cli import lines as lines_module
from tailrace.cli.errors import CommandError, UsageError
from tailrace.cli.formats import BadLineError, Fields, Format, Rows, format_of, rows_of
from tailrace.cli.lines import Lines


def source(text: str | bytes) -> Lines:
    data = text.encode() if isinstance(text, str) else text
    return Lines(io.BufferedReader(io.BytesIO(data)), "in", len(data))


def gather(rows: Iterator[Rows]) -> tuple[list[bytes], list[bytes | None], list[int]]:
    values: list[bytes] = []
    keys: list[bytes | None] = []
    times: list[int] = []
    for batch in rows:
        values += batch.values
        keys += batch.keys or []
        times += batch.timestamps_ms or []
    return values, keys, times


def refused(text: str | bytes, form: Format, fields: Fields | None = None) -> tuple[BadLineError, list[bytes]]:
    values: list[bytes] = []
    rows = rows_of(source(text), form, fields or Fields())
    with pytest.raises(BadLineError) as caught:
        values.extend(value for batch in rows for value in batch.values)
    return caught.value, values


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.csv", "csv"),
        ("A.CSV.GZ", "csv"),
        ("x.log.gz", "raw"),
        ("x.txt", "raw"),
        ("x.ndjson", "ndjson"),
        ("-", "ndjson"),
    ],
)
def test_the_format_follows_from_the_name(path: str, form: str) -> None:
    assert format_of(path) == form


# ---------------------------------------------------------------- raw
def test_raw_lines_are_sent_as_they_are() -> None:
    assert gather(rows_of(source(b"a \n\n\xff\r\nlast"), Format.RAW, Fields())) == (
        [b"a ", b"", b"\xff\r", b"last"],
        [],
        [],
    )


def test_raw_lines_have_no_fields() -> None:
    with pytest.raises(UsageError, match="--key and --timestamp need"):
        rows_of(source(""), Format.RAW, Fields(key="a"))


# ---------------------------------------------------------------- ndjson
def test_ndjson_lines_are_sent_byte_for_byte_with_their_keys_and_times() -> None:
    text = '{"k": "a", "at":5}\n\n'
    text += '{"k":7 , "at":"1970-01-01T00:00:01Z"}\n {"k":null,"at":"1970-01-01 00:00:02"}\n{"at":0}\n'
    values, keys, times = gather(rows_of(source(text), Format.NDJSON, Fields(key="k", timestamp="at")))
    assert values == [line.encode() for line in text.split("\n") if line]
    assert keys == [b"a", b"7", None, None]
    assert times == [5, 1000, 2000, 0]


def test_keys_are_the_text_and_not_its_escapes() -> None:
    assert gather(rows_of(source('{"k":"a\\"\\u00e4"}'), Format.NDJSON, Fields(key="k")))[1] == ['a"ä'.encode()]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b'{"a":', "truncated"),
        (b"plain words", "malformed"),
        (b'{"a":1} {"a":2}', "trailing"),
        (b'{"a":"\xff"}', "utf-8"),
        (b"NaN", "malformed"),
    ],
)
def test_a_malformed_line_is_named_and_what_came_before_is_given(bad: bytes, why: str) -> None:
    error, values = refused(b'{"a":1}\n\n[2]\n' + bad + b"\n{}\n", Format.NDJSON)
    assert error.line == 4
    assert str(error).startswith("in:4: ")
    assert why in str(error)
    assert values == [b'{"a":1}', b"[2]"]


def test_line_numbers_count_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 7)
    error, values = refused("1\n22\n333\n4444\n\n55555\nx\n7\n", Format.NDJSON)
    assert error.line == 7
    assert len(values) == 5


@pytest.mark.parametrize(
    ("line", "fields", "why"),
    [
        ("[1]", Fields(key="k"), "Expected `object`"),
        ('{"k":{"a":1}}', Fields(key="k"), "must be a text or a number"),
        ('{"t":"soon"}', Fields(timestamp="t"), "milliseconds or ISO 8601"),
        ("{}", Fields(timestamp="t"), "milliseconds or ISO 8601"),
        ('{"t":-1}', Fields(timestamp="t"), "milliseconds or ISO 8601"),
    ],
)
def test_fields_that_cannot_be_used_are_refused(line: str, fields: Fields, why: str) -> None:
    error, _ = refused(line, Format.NDJSON, fields)
    assert why in str(error)


# ---------------------------------------------------------------- csv
def test_csv_rows_become_objects_under_their_header() -> None:
    text = 'id,name,at\r\n1,"a, ""b""\nc",2010-12-01 08:26:00\r\n,ü,1970-01-01T00:00:00+01:00\r\n'.replace(
        "+01:00", "Z"
    )
    values, keys, times = gather(rows_of(source(text), Format.CSV, Fields(key="id", timestamp="at")))
    assert [json.loads(value) for value in values] == [
        {"id": "1", "name": 'a, "b"\nc', "at": "2010-12-01 08:26:00"},
        {"id": "", "name": "ü", "at": "1970-01-01T00:00:00Z"},
    ]
    assert keys == [b"1", None]
    assert times == [1_291_191_960_000, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=12),
    st.integers(1, 40),
)
def test_csv_survives_any_cell_and_any_block(cells: list[tuple[str, str]], block: int) -> None:
    cells = [(a.replace("\0", "").replace("\r", ""), b.replace("\0", "").replace("\r", "")) for a, b in cells]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("first", "second"), *cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "BLOCK_BYTES", block)
        values, keys, _ = gather(rows_of(source(text.getvalue()), Format.CSV, Fields(key="second")))
    assert [tuple(json.loads(value).values()) for value in values] == cells
    assert keys == [second.encode() or None for _, second in cells]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1", "1 fields under a header of 2"),
        ("1,2,3", "3 fields under"),
        ('"1,2', "unexpected end"),
        ('"1"x,2', "expected after"),
    ],
)
def test_a_row_that_does_not_fit_is_named(row: str, why: str) -> None:
    error, values = refused(f"a,b\n1,2\n\n{row}", Format.CSV)
    assert error.line == 4
    assert why in str(error)
    assert len(values) == 1


def test_a_time_that_is_none_is_named() -> None:
    error, values = refused("a,t\n1,5\n2,6\n3,later\n4,7\n", Format.CSV, Fields(timestamp="t"))
    assert error.line == 4
    assert len(values) == 2


def test_a_csv_file_without_the_column_lists_those_it_has() -> None:
    with pytest.raises(UsageError, match=r"no column user for --key; its columns are id, name"):
        list(rows_of(source("id,name\n1,2\n"), Format.CSV, Fields(key="user")))


def test_a_column_named_twice_is_refused() -> None:
    with pytest.raises(CommandError, match="names the column 'a' twice"):
        list(rows_of(source("a,b,a\n1,2,3\n"), Format.CSV, Fields()))


def test_an_empty_file_has_no_rows() -> None:
    for form in Format:
        assert gather(rows_of(source(""), form, Fields())) == ([], [], [])
