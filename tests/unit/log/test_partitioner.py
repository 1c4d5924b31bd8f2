"""Kafka's partitioner."""

import pytest

from tailrace.log import partitioner
from tailrace.log.partitioner import Partitioner, murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [  # Kafka's UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed & 0xFFFFFFFF


def test_a_key_always_goes_to_one_partition() -> None:
    chosen = Partitioner(7)
    keys = [b"%d" % number for number in range(100)]
    assert (
        [chosen.of(key) for key in keys] == [partition_of(key, 7) for key in keys] == [chosen.of(key) for key in keys]
    )


def test_null_keys_stay_until_their_batch_is_full() -> None:
    chosen = Partitioner(3)
    assert [chosen.of(None) for _ in range(3)] == [0, 0, 0]
    chosen.batch_full(2)
    assert chosen.of(None) == 0
    for expected in (1, 2, 0):
        chosen.batch_full(chosen.sticky)
        assert chosen.of(None) == expected


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioner, "KEYS_MAX", 10)
    chosen = Partitioner(3)
    for number in range(25):
        chosen.of(b"%d" % number)
        assert len(chosen.known) <= 10
