"""Kafka's own DumpLogSegments reads our transactions: the state of ids, the markers, the offsets in them."""

import json
import re
import subprocess
from itertools import groupby
from pathlib import Path

from tailrace import Log
from tailrace.log.record import TopicPartition
from tailrace.tests.support.shared import KAFKA, needs_kafka

pytestmark = needs_kafka


def dumped(decoder: str, file: Path) -> str:
    command = [str(KAFKA), "run", "org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", decoder, "--files"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_kafka_reads_our_transactions(tmp_path: Path) -> None:
    with Log.open(str(tmp_path)) as log:
        log.create_topic("t", partitions=2)
        log.create_topic("read")
        with log.producer() as plain:
            plain.send_many("read", [b"r"] * 42)
        with log.producer(transactional_id="orders") as producer:
            for end in (producer.commit, producer.abort):
                producer.begin()
                producer.send("t", b"a", partition=0)
                producer.send("t", b"b", partition=1)
                producer.flush()
                producer.send_offsets("readers", {TopicPartition("read", 0): 42})
                end()
    found = dumped("--transaction-log-decoder", tmp_path / "__transaction_state-0" / f"{0:020}.log")
    states = [json.loads(each)["data"] for each in re.findall(r"payload: (.*)", found)]
    # Empty, Ongoing, PrepareCommit, CompleteCommit, Ongoing, PrepareAbort, CompleteAbort; an epoch for each decision.
    ways = [key for key, _ in groupby((each["transactionStatus"], each["producerEpoch"]) for each in states)]
    assert ways == [(0, 0), (1, 0), (2, 1), (4, 1), (1, 1), (3, 2), (5, 2)]
    decided = next(each for each in states if each["transactionStatus"] == 2)
    assert decided["transactionPartitions"] == [
        {"topic": "__consumer_offsets", "partitionIds": [0]},
        {"topic": "t", "partitionIds": [0, 1]},
    ]
    assert states[0]["transactionPartitions"] is None
    found = dumped("--print-data-log", tmp_path / "t-1" / f"{0:020}.log")
    assert "endTxnMarker: COMMIT" in found, found
    assert "endTxnMarker: ABORT" in found, found
    found = dumped("--offsets-decoder", tmp_path / "__consumer_offsets-0" / f"{0:020}.log")
    assert '"offset":42' in found, found
    assert "readers" in found, found
