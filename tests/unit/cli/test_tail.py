"""`tailrace tail`."""

import os
import signal
import struct
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tailrace.log.client import Log
from tailrace.tests.support.command import Command


@pytest.fixture
def numbers(tailrace: Command) -> Command:
    """The command, on a topic `numbers` with two partitions of 100 records, a second apart."""
    with Log.open(tailrace.log) as log:
        log.create_topic("numbers", partitions=2)
        with log.producer() as producer:
            for number in range(200):
                producer.send(
                    "numbers", b"v%d" % number, key=b"k%d" % number, timestamp_ms=number * 1000, partition=number % 2
                )
    return tailrace


def shown(command: Command, *arguments: str) -> list[str]:
    return [row["value"] for row in command.ok("tail", "numbers", "--json", *arguments).json]


def test_without_options_it_shows_the_last_ten_by_time(numbers: Command) -> None:
    assert shown(numbers) == [f"v{number}" for number in range(190, 200)]
    assert "the last 10 of 200 records" in numbers.ok("tail", "numbers").err


def test_n_shows_the_last_n(numbers: Command) -> None:
    assert shown(numbers, "-n", "3") == ["v197", "v198", "v199"]
    assert shown(numbers, "-n", "0") == []
    assert len(shown(numbers, "-n", "1000")) == 200


def test_from_begins_there_in_each_partition(numbers: Command) -> None:
    assert sorted(shown(numbers, "--from", "earliest")) == sorted(f"v{number}" for number in range(200))
    assert shown(numbers, "--from", "latest") == []
    assert set(shown(numbers, "--from", "98")) == {"v196", "v197", "v198", "v199"}
    assert shown(numbers, "--from", "5000") == []
    assert len(shown(numbers, "--from", "earliest", "-n", "7")) == 7
    assert shown(numbers, "--from", "earliest", "-n", "0") == []


def test_from_a_time(numbers: Command) -> None:
    when = datetime.fromtimestamp(197, UTC)
    assert set(shown(numbers, "--from", when.isoformat())) == {"v197", "v198", "v199"}
    assert set(shown(numbers, "--from", when.strftime("%Y-%m-%d %H:%M:%S"))) == {"v197", "v198", "v199"}
    assert numbers("tail", "numbers", "--from", "tomorrow").code == 2


def test_a_record_for_a_person_and_for_a_program(tailrace: Command) -> None:
    with Log.open(tailrace.log) as log:
        log.create_topic("counts")
        with log.producer() as producer:
            producer.send("counts", struct.pack(">q", 7), key=b"p1", timestamp_ms=0, headers=[("h", b"x"), ("n", None)])
            producer.send("counts", None, key=b"\xff", timestamp_ms=1)
    lines = tailrace.ok("tail", "counts").out.splitlines()
    assert lines == ["1970-01-01T00:00:00.000Z  0@0  p1  7  h=x  n=null", "1970-01-01T00:00:00.001Z  0@1  0xff  null"]
    first, second = tailrace.ok("tail", "counts", "--json", "--value-type", "int").json
    assert first == {
        "topic": "counts",
        "partition": 0,
        "offset": 0,
        "timestamp_ms": 0,
        "key": "p1",
        "value": 7,
        "headers": [["h", "x"], ["n", None]],
    }
    assert (second["key"], second["value"]) == ({"base64": "/w=="}, None)


def test_a_wrong_type_names_the_record(numbers: Command) -> None:
    found = numbers("tail", "numbers", "--from", "0", "--value-type", "int")
    assert found.code == 1
    assert "numbers-0@0: " in found.err


def test_a_missing_topic_is_not_found(numbers: Command) -> None:
    found = numbers("tail", "number")
    assert found.code == 3
    assert "'numbers'" in found.err


def test_it_follows_a_writer_and_ends_quietly(numbers: Command) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tailrace", "--log", numbers.log, "tail", "numbers", "-f", "-n", "1"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().rstrip().endswith("k199  v199")
        with Log.open(numbers.log) as log, log.producer() as producer:
            producer.send("numbers", b"new", key=b"k").result(timeout=10)
            assert process.stdout.readline().rstrip().endswith("k  new")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_closed_pipe_is_no_error(numbers: Command) -> None:
    command = f"{sys.executable} -m tailrace --log {numbers.log} tail numbers --from earliest | head -1"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0
    assert found.stderr == ""
    assert found.stdout.count("\n") == 1
