"""What consumers tell each other in a group: round trips, other clients' bytes, damage."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.errors import InvalidError
from tailrace.log.groups.assignors import Subscription
from tailrace.log.groups.consumer_protocol import (
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from tailrace.log.record import TopicPartition
from tailrace.tests.support.shared import shared_data

TOPICS = st.lists(st.text(min_size=1, max_size=5), max_size=3, unique=True)
PARTITIONS = st.lists(st.builds(TopicPartition, st.sampled_from(["t", "u"]), st.integers(0, 99)), unique=True).map(
    sorted
)


@given(TOPICS, PARTITIONS, st.binary(max_size=9), st.integers(-1, 2**31 - 1))
@settings(max_examples=60)
def test_what_a_member_says_is_heard(
    topics: list[str], owned: list[TopicPartition], userdata: bytes, generation: int
) -> None:
    said = Subscription(topics, owned, userdata, "i", generation)
    assert decode_subscription(encode_subscription(said), "i") == said
    assert decode_assignment(encode_assignment(owned)) == owned


def test_the_bytes_are_kafkas() -> None:
    """ConsumerProtocolSubscription 3 and ConsumerProtocolAssignment 0, field by field."""
    said = Subscription(["t"], [TopicPartition("t", 1), TopicPartition("t", 4)], b"xy", generation=7)
    assert encode_subscription(said) == (
        b"\0\3\0\0\0\1\0\1t\0\0\0\2xy\0\0\0\1\0\1t\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\7\xff\xff"
    )
    assert encode_assignment(said.owned) == b"\0\0" + b"\0\0\0\1\0\1t\0\0\0\2\0\0\0\1\0\0\0\4" + b"\xff\xff\xff\xff"


def test_older_versions_and_clients_that_leave_things_out() -> None:
    begin = b"\0\0\0\1\0\1t" + b"\xff\xff\xff\xff"
    assert decode_subscription(b"\0\0" + begin) == Subscription(["t"], [])
    assert decode_subscription(b"\0\1" + begin) == Subscription(["t"], [])  # as KafkaJS writes version 1
    assert decode_subscription(b"\0\1" + begin + b"\0\0\0\0") == Subscription(["t"], [])
    assert decode_subscription(b"\0\2" + begin + b"\0\0\0\0" + b"\0\0\0\5").generation == 5
    assert decode_subscription(b"\0\x09" + begin + b"\0\0\0\0" + b"\0\0\0\5\xff\xff" + b"more").generation == 5
    assert decode_assignment(b"") == []


@given(st.integers(0, 40))
@settings(max_examples=30)
def test_bytes_that_end_early_are_refused(size: int) -> None:
    whole = encode_assignment([TopicPartition("topic", number) for number in range(5)])
    with pytest.raises(InvalidError, match="ends after"):
        decode_assignment(whole[: 1 + size % (len(whole) - 5)])
    with pytest.raises(InvalidError, match="ends after"):
        decode_subscription(struct.pack(">hi", 0, -5 + size % 4 + 10) + b"\0\x09topic")


def test_bytes_that_kafkajs_sent() -> None:
    metadata = shared_data("kafka_wire/kafkajs/joinGroup/v1_assignerMetadata.json")
    assignment = shared_data("kafka_wire/kafkajs/syncGroup/v1_memberAssignment.json")
    if metadata is None or assignment is None:
        pytest.skip("no captures of KafkaJS here")
    said = decode_subscription(bytes(json.loads(metadata.read_text())["data"]))
    assert (len(said.topics), said.topics[0][:11], said.owned) == (1, "test-topic-", [])
    given_ = decode_assignment(bytes(json.loads(assignment.read_text())["data"]))
    assert [each.partition for each in given_] == [0]
    assert given_[0].topic.startswith("test-topic-")
