"""The life of a transactional id: every state with every event, epochs, and Kafka's bytes."""

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.log.errors import InvalidError
from tailrace.log.record import TopicPartition
from tailrace.log.transactions.records import decode_key, decode_value, encode_key, encode_value
from tailrace.log.transactions.states import (
    EPOCH_MAX,
    TRANSITIONS,
    Transaction,
    TransactionState,
    check_transactional,
    first_use,
)

S = TransactionState
T0, T1, U0 = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)


def unused() -> int:
    raise AssertionError("no new producer id is needed")


def ongoing() -> Transaction:
    return first_use("x", 7, 60_000, 10).add([T0], 20)


def test_a_transaction_from_its_first_partition_to_the_next() -> None:
    taken = first_use("x", 7, 60_000, 10)
    assert (taken.state, taken.producer_id, taken.producer_epoch, taken.started_ms) == (S.EMPTY, 7, 0, -1)
    begun = taken.add([T0], 20)
    assert (begun.state, begun.partitions, begun.started_ms) == (S.ONGOING, frozenset({T0}), 20)
    wider = begun.add([T1], 30)
    assert (wider.partitions, wider.started_ms, wider.updated_ms) == (frozenset({T0, T1}), 20, 30)
    decided = wider.decide(40, commit=True)
    assert (decided.state, decided.committed, decided.partitions) == (S.PREPARE_COMMIT, True, frozenset({T0, T1}))
    complete = decided.complete(50)
    assert (complete.state, complete.partitions) == (S.COMPLETE_COMMIT, frozenset())
    following = complete.add([U0], 60)
    assert (following.partitions, following.started_ms) == (frozenset({U0}), 60)


def test_a_decision_owns_what_was_written_before_it_and_nothing_after() -> None:
    begun = ongoing()
    for commit in (True, False):
        decided = begun.decide(30, commit=commit)
        assert decided.owns(begun.producer_epoch)
        assert not decided.owns(decided.complete(40).add([T0], 50).producer_epoch)
    assert not begun.owns(begun.producer_epoch)


def test_taking_an_id_fences_and_begins_anew() -> None:
    complete = ongoing().decide(30, commit=False).complete(40)
    taken = complete.take(5_000, 50, unused)
    assert taken.producer_epoch == complete.producer_epoch + 1
    assert (taken.state, taken.timeout_ms, taken.partitions, taken.started_ms) == (S.EMPTY, 5_000, frozenset(), -1)


def test_epochs_that_are_used_up_take_another_producer_id() -> None:
    last = replace(ongoing(), producer_epoch=EPOCH_MAX)
    complete = last.decide(30, commit=True).complete(40)
    assert complete.producer_epoch == 2**15 - 1
    assert complete.used_up
    taken = complete.take(60_000, 50, lambda: 99)
    assert (taken.producer_id, taken.producer_epoch) == (99, 0)
    assert not taken.used_up


def test_every_state_refuses_what_the_table_does_not_have() -> None:
    steps: dict[str, Callable[[Transaction], Transaction]] = {
        "take": lambda each: each.take(1, 1, lambda: 1),
        "add": lambda each: each.add([T0], 1),
        "commit": lambda each: each.decide(1, commit=True),
        "abort": lambda each: each.decide(1, commit=False),
        "marked": lambda each: each.complete(1),
    }
    assert {event for _, event in TRANSITIONS} == set(steps)
    for state in S:
        for event, step in steps.items():
            at = replace(ongoing(), state=state)
            wanted = {after for (before, each), after in TRANSITIONS.items() if (before, each) == (state, event)}
            if wanted:
                assert {step(at).state} == wanted
            else:
                with pytest.raises(InvalidError, match=f"'x' is in state {state.word}: "):
                    step(at)


def test_every_decision_ends_and_a_dead_id_stays_dead() -> None:
    assert {state for state, event in TRANSITIONS if event == "marked"} == {S.PREPARE_COMMIT, S.PREPARE_ABORT}
    for state in (S.PREPARE_COMMIT, S.PREPARE_ABORT):
        assert [event for each, event in TRANSITIONS if each is state] == ["marked"]
    assert not [each for each in TRANSITIONS if each[0] in {S.DEAD, S.PREPARE_EPOCH_FENCE}]


@pytest.mark.parametrize("timeout_ms", [0, 900_001, -1])
def test_a_time_out_that_cannot_be_is_refused(timeout_ms: int) -> None:
    with pytest.raises(ValueError, match=f"transaction_timeout_ms={timeout_ms}"):
        check_transactional("x", timeout_ms)


def test_an_id_that_cannot_be_kept_is_refused() -> None:
    for each in ("", "x" * 32_768):
        with pytest.raises(ValueError, match="32,767"):
            check_transactional(each, 1)
    check_transactional("x" * 32_767, 900_000)


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_the_bytes_are_kafkas() -> None:
    assert encode_key("x") == bytes.fromhex("0000 0001 78".replace(" ", ""))
    made = Transaction("x", 7, 3, 60_000, S.PREPARE_COMMIT, frozenset({U0, T1, T0}), 40, 20)
    assert encode_value(made) == bytes.fromhex(
        "0000 0000000000000007 0003 0000ea60 02"  # version, producer id, epoch, time-out, state
        "00000002 0001 74 00000002 00000000 00000001 0001 75 00000001 00000000"  # topics, sorted, with partitions
        "0000000000000028 0000000000000014".replace(" ", "")  # last update, start
    )
    empty = first_use("x", 7, 60_000, 10)
    assert encode_value(empty).endswith(struct.pack(">iqq", -1, 10, -1))  # Kafka's null for no partitions


@given(
    st.text(min_size=1, max_size=20),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**15 - 1),
    st.sampled_from([S.ONGOING, S.PREPARE_ABORT, S.COMPLETE_COMMIT, S.EMPTY]),
    st.frozensets(st.builds(TopicPartition, st.sampled_from(["t", "u.v", "w" * 249]), st.integers(0, 2**31 - 1))),
    st.integers(-1, 2**63 - 1),
)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_comes_back(
    transactional_id: str,
    producer_id: int,
    epoch: int,
    state: TransactionState,
    partitions: frozenset[TopicPartition],
    started_ms: int,
) -> None:
    kept = frozenset[TopicPartition]() if state is S.EMPTY else partitions
    made = Transaction(transactional_id, producer_id, epoch, 1_000, state, kept, 5, started_ms)
    assert decode_key(encode_key(transactional_id)) == transactional_id
    data = encode_value(made)
    assert decode_value(transactional_id, data) == made
    for length in range(0, len(data), 7):
        with pytest.raises(InvalidError, match=rf"after {length} bytes|"):
            decode_value(transactional_id, data[:length])


def test_the_flexible_version_of_kafka_4_is_read() -> None:
    data = (
        struct.pack(">hqhib", 1, 7, 3, 60_000, 1)
        + bytes([2, 2]) + b"t" + bytes([3]) + struct.pack(">ii", 0, 1) + bytes([0])  # a topic, two partitions, no tags
        + struct.pack(">qq", 40, 20)
        + bytes([1, 2, 2]) + struct.pack(">h", 2)  # a tag: the client's transaction version
    )  # fmt: skip
    assert decode_value("x", data) == Transaction("x", 7, 3, 60_000, S.ONGOING, frozenset({T0, T1}), 40, 20)
    none = struct.pack(">hqhib", 1, 7, 3, 60_000, 0) + bytes([0]) + struct.pack(">qq", 40, -1) + bytes([0])
    assert decode_value("x", none).partitions == frozenset()


def test_what_is_not_known_is_refused_or_passed_over() -> None:
    assert decode_key(struct.pack(">hh1s", 1, 1, b"x")) is None
    with pytest.raises(InvalidError, match="version 2, and 0 and 1 are known"):
        decode_value("x", struct.pack(">h", 2))
    with pytest.raises(InvalidError, match="state 9"):
        decode_value("x", struct.pack(">hqhib", 0, 7, 3, 60_000, 9))
