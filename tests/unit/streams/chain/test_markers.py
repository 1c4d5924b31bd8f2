"""Markers as bytes, what a reader commits of them, and claims that end when their sources go on."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.streams.chain.clocks import METADATA_CHARS_MAX, NEVER, encode_clocks
from tailrace.streams.chain.log_hop import LogHop
from tailrace.streams.chain.markers import (
    MARKER,
    Claim,
    End,
    Known,
    Said,
    SourceEnds,
    decode,
    decode_known,
    encode,
    encode_known,
)
from tailrace.streams.chain.outputs import Outputs
from tailrace.tests.support.engine import contents

ENDS = st.builds(End, st.sampled_from(["a", "b"]), st.integers(1, 3), st.integers(0, 2), st.integers(0, 1 << 62))
CLAIMS = st.none() | st.frozensets(ENDS, max_size=4)
TIMES = st.just(NEVER) | st.integers(0, 1 << 60)
KNOWN = st.builds(
    Known,
    st.integers(0, 9),
    st.just({"a": 3}),
    st.dictionaries(st.integers(0, 200), st.builds(Said, TIMES, CLAIMS), max_size=5),
)


@settings(max_examples=100, deadline=None)
@given(known=KNOWN, stream_time_ms=st.integers(-1, 1 << 62))
def test_they_are_read_as_they_were_written(known: Known, stream_time_ms: int) -> None:
    found = decode(encode(known))
    assert (found.writers, found.said) == (known.writers, known.said)
    assert found.sources["a"] in {1, 2, 3}
    committed = decode_known(encode_known(stream_time_ms, known))
    assert committed is not None
    assert committed[0] == stream_time_ms
    assert committed[1].said == known.said


def test_the_bytes_of_a_marker() -> None:
    claim: Claim = frozenset({End("t", 2, 1, 7)})
    data = encode(Known(2, {"t": 2}, {0: Said(1_000), 1: Said(1_005, claim), 2: Said(NEVER)}))
    assert data.hex(" ") == (
        "01 95 02 91 92 a1 74 02 91 91 93 00 01 07 cd 03 e8 93 93 00 00 c0 93 01 05 00 93 02 ff c0"
    )


@pytest.mark.parametrize("data", [b"", b"\x02\x95", b"\x01\xc1", b"\x01\x95\x00\x90\x90\x00\x91\x93\x00\x00\x05"])
def test_bytes_that_are_no_marker(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


def test_metadata_that_cannot_be_read_and_that_of_the_other_form() -> None:
    assert decode_known("") is None
    assert decode_known(encode_clocks([5, 6])) is None
    for text in ("ä", "Aw==", base64.b64encode(b"\x03" + bytes(8) + b"\x09").decode()):
        with pytest.raises(InvalidError, match="cannot be read"):
            decode_known(text)


def test_what_is_too_long_keeps_stream_time_and_the_least_time() -> None:
    claim = frozenset({End("topic", 900, number, 1 << 40) for number in range(900)})
    said = {number: Said(1_000 + number, claim) for number in range(300)}
    text = encode_known(5_000, Known(300, {"topic": 900}, said))
    assert len(text) <= METADATA_CHARS_MAX
    assert decode_known(text) == (5_000, Known(300, {}, {number: Said(1_000) for number in range(300)}))
    many = {number: Said(number) for number in range(9_000)}
    text = encode_known(5_000, Known(9_000, {}, many))
    assert decode_known(text) == (5_000, Known(9_000, {}, {}))


def test_a_claim_holds_while_its_sources_end_where_it_says() -> None:
    with Log.open("memory:") as log:
        log.create_topic("t", partitions=2)
        with log.producer() as producer:
            producer.send("t", b"1", partition=1).result()
            ends = SourceEnds(log)
            claim = frozenset({End("t", 2, 0, 0), End("t", 2, 1, 1)})
            assert ends.hold(claim)
            assert not ends.hold({End("t", 2, 1, 0)})
            producer.send("t", b"2", partition=1).result()
        assert ends.hold(claim), "looked up once"
        ends.forget()
        assert not ends.hold(claim)
        assert ends.hold({End("t", 2, 0, 0)})
        log.create_partitions("t", 3)
        ends.forget()
        assert not ends.hold({End("t", 2, 0, 0)}), "nobody has read the new one"


def test_only_what_is_new_is_told_and_times_never_go_back() -> None:
    with Log.open("memory:") as log:
        log.create_topic("r", partitions=2)
        with log.producer() as producer:
            outputs = Outputs(producer)
            columns = [outputs.internal(TopicPartition("r", number)) for number in range(2)]
            hop = LogHop(columns, 2, {"t": 2}, None)
            hop.tell({0: Said(NEVER), 1: Said(50)})
            hop.tell({0: Said(NEVER), 1: Said(40)})
            hop.tell({0: Said(30), 1: Said(40)})
            outputs.send()
            assert outputs.sent == 0, "they are no results"
        found = contents(log, "r")
        assert [record.partition for record in found] == [0, 0, 1, 1]
        assert all(list(record.headers) == [(MARKER, b"")] for record in found)
        assert [record.timestamp_ms for record in found[:2]] == [0, 30]
        assert [decode(record.value or b"").said for record in found[:2]] == [
            {0: Said(NEVER), 1: Said(50)},
            {0: Said(30)},
        ]
