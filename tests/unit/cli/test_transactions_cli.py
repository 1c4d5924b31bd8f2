"""`topics describe` and `groups describe` of a log with an open transaction, beside the process that writes it."""

from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.tests.support.command import Command


@pytest.fixture
def log(tailrace: Command) -> Any:
    with Log.open(tailrace.log) as log:
        log.create_topic("clicks", partitions=2)
        with log.producer() as plain:
            plain.send("clicks", b"0", partition=1)
        log.alter_offsets("readers", {TopicPartition("clicks", 1): 0})
        log.alter_offsets("others", {TopicPartition("clicks", 0): 0})
        yield log


def test_an_open_transaction_is_named_with_its_age(tailrace: Command, log: Log) -> None:
    with log.producer(transactional_id="orders-1") as producer:
        producer.begin()
        producer.send("clicks", b"1", partition=1)
        producer.flush()
        found = tailrace.ok("topics", "describe", "clicks", "--json").json[0]
        assert found["partitions"][1] == {
            "partition": 1,
            "log_start_offset": 0,
            "last_stable_offset": 1,
            "log_end_offset": 2,
        }
        assert [(each["transactional_id"], each["first_offset"]) for each in found["open_transactions"]] == [
            ("orders-1", 1)
        ]
        assert 0 <= found["open_transactions"][0]["age_ms"] < 60_000
        for command in (("topics", "describe", "clicks"), ("groups", "describe", "readers")):
            assert "clicks-1@1: a transaction of 'orders-1' is open for " in tailrace.ok(*command).out
        assert "transaction" not in tailrace.ok("groups", "describe", "others").out
        assert tailrace.ok("groups", "describe", "readers", "--json").json[0]["open_transactions"][0]["partition"] == 1
        producer.commit()
        assert tailrace.ok("topics", "describe", "clicks", "--json").json[0]["open_transactions"] == []
        assert "transaction" not in tailrace.ok("groups", "describe", "readers").out
