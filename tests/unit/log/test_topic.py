"""Names and configurations of topics."""

import pytest

from tailrace.log.errors import InvalidError
from tailrace.log.topic import TopicConfig, check_topic_name, config_strings, near_names


@pytest.mark.parametrize("name", ["a", "clicks", "A.b_c-9", "x" * 249, "__consumer_offsets", "..."])
def test_kafkas_names_pass(name: str) -> None:
    check_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a b", "a/b", "é", "a\n", "a:b"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        check_topic_name(name)


def test_a_configuration_takes_text_and_numbers() -> None:
    config = TopicConfig.parse({"retention.ms": 3600, "cleanup.policy": "delete, compact", "segment.bytes": "1000"})
    assert (config.retention_ms, config.cleanup_policy, config.segment_bytes) == (3600, "compact,delete", 1000)
    assert config.compacted
    assert config.deleted
    assert TopicConfig.parse(config.as_strings()) == config


def test_a_new_topic_keeps_everything() -> None:
    assert (TopicConfig().retention_ms, TopicConfig().retention_bytes) == (-1, -1)


def test_only_what_was_given_is_recorded() -> None:
    assert config_strings({"retention.ms": 1}) == {"retention.ms": "1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "soon"),
        ("retention.ms", -2),
        ("segment.bytes", 0),
        ("segment.bytes", 2**31),
        ("cleanup.policy", "keep"),
        ("cleanup.policy", ""),
        ("min.cleanable.dirty.ratio", 1.5),
        ("message.timestamp.type", "createtime"),
        ("compression.type", "none"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidError, match=name):
        TopicConfig.parse({name: value})


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(InvalidError, match=r"did you mean 'retention\.ms'"):
        TopicConfig.parse({"retention_ms": 1})
    with pytest.raises(InvalidError, match=r"no topic configuration .*: the 17 that there are stand in describe_topic"):
        TopicConfig.parse({"zzz": 1})


def test_near_names_are_only_near() -> None:
    assert near_names("click", ["clicks", "orders"]) == "; did you mean 'clicks'?"
    assert near_names("zzz", ["clicks", "orders"]) == ""
