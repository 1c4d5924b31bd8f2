"""Records of topics, and the table that they add up to."""

import pytest

from tailrace.log.errors import InvalidError, TopicExistsError, TopicNotFoundError
from tailrace.log.topics.metadata import (
    DeletedRecord,
    FormatRecord,
    MetadataRecord,
    TopicRecord,
    TopicTable,
    decode_record,
    encode_record,
    new_topic_id,
)

CLICKS = TopicRecord(name="clicks", topic_id="A" * 22, partitions=4, config={"retention.ms": "1"}, internal=False)


@pytest.mark.parametrize("record", [FormatRecord(1), CLICKS, DeletedRecord(name="clicks", topic_id="A" * 22)])
def test_a_record_comes_back_as_it_went(record: MetadataRecord) -> None:
    assert decode_record(encode_record(record)[1]) == record


def test_the_bytes_are_those_of_the_format() -> None:
    key, value = encode_record(CLICKS)
    assert key == b"A" * 22
    assert value == (
        b'{"kind":"topic","name":"clicks","topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":4,'
        b'"config":{"retention.ms":"1"},"internal":false}'
    )


@pytest.mark.parametrize(
    "value", [b'{"kind":"format","version":2}', b'{"kind":"alias","name":"x"}', b"\x01\x0c\x00", b"{}"]
)
def test_what_is_not_understood_refuses_the_log(value: bytes) -> None:
    with pytest.raises(InvalidError, match="format"):
        decode_record(value)


def test_the_table_follows_the_records() -> None:
    table = TopicTable()
    table.apply(FormatRecord(1))
    table.apply(CLICKS)
    assert table.require("clicks") is CLICKS
    assert table.config("clicks").retention_ms == 1
    table.apply(DeletedRecord(name="clicks", topic_id="another"))
    assert "clicks" in table
    table.apply(DeletedRecord(name="clicks", topic_id=CLICKS.topic_id))
    with pytest.raises(TopicNotFoundError):
        table.require("clicks")


def test_internal_topics_are_hidden() -> None:
    table = TopicTable()
    table.apply(CLICKS)
    table.apply(TopicRecord(name="__own", topic_id="B" * 22, partitions=1, config={}, internal=True))
    assert table.names(internal=False) == ["clicks"]
    assert table.names(internal=True) == ["__own", "clicks"]


def test_a_name_is_taken_once_dots_and_underscores_alike() -> None:
    table = TopicTable()
    table.apply(TopicRecord(name="a.b", topic_id="B" * 22, partitions=1, config={}))
    for name in ("a.b", "a_b"):
        with pytest.raises(TopicExistsError):
            table.new_topic(name, 1, {}, internal=False, new_id=new_topic_id)


def test_ids_are_kafkas() -> None:
    for _ in range(200):
        topic_id = new_topic_id()
        assert len(topic_id) == 22
        assert not topic_id.startswith("-")
