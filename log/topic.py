"""What a topic is besides its data: its name, its configuration.

1. A name follows Kafka's rules, so that it can be a folder's name and can move to a cluster.
2. A configuration uses Kafka's names and, except for retention, Kafka's defaults: a new topic keeps everything, as a
   record of 2023 that is replayed today must not be deleted on arrival.
3. A `TopicConfig` is always valid: whatever cannot be parsed is refused before anything is written.

Not here: where topics are recorded (`metadata`), which partition a key belongs to (`partitioner`).
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

from tailrace.log.errors import InvalidError

CONSUMER_OFFSETS: Final = "__consumer_offsets"
CLUSTER_METADATA: Final = "__cluster_metadata"
TRANSACTION_STATE: Final = "__transaction_state"
OWNED: Final = {
    CONSUMER_OFFSETS: "the committed offsets",
    CLUSTER_METADATA: "what topics there are",
    TRANSACTION_STATE: "what transactions there are",
}
NAME_LENGTH_MAX: Final = 249  # Kafka's Topic.MAX_NAME_LENGTH: with "-<partition>" and a suffix it stays under 255
NOTE_BYTES_MAX: Final = 4096  # as what a group keeps beside an offset
PARTITIONS_MAX: Final = 10_000  # Kafka's ReplicationControlManager.MAX_PARTITIONS_PER_BATCH: each holds files open
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


def check_topic_name(name: str) -> None:
    """Refuses a name that Kafka would refuse.

    Raises:
        InvalidError: empty, over 249 characters, `.` or `..`, or a character other than ASCII letters, digits, `.`,
            `_`, `-`.
        TypeError: not a str.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise TypeError(f"a topic's name is a str, not {type(name).__name__}")
    if not name:
        raise InvalidError("a topic's name cannot be empty: give it at least one character")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidError(f"the topic name {name[:20]!r}… has {len(name)} characters: shorten it to {NAME_LENGTH_MAX}")
    if name in {".", ".."}:
        raise InvalidError(f"{name!r} cannot be a topic's name, as it names a folder: choose another")
    if not _NAME.match(name):
        raise InvalidError(
            f"the topic name {name!r} has a character that is not allowed: use ASCII letters, digits, '.', '_', '-'"
        )


def check_not_owned(name: str) -> None:
    """Refuses, for whatever a user wants to write, a topic that only the log itself may.

    Raises:
        InvalidError: the log keeps its own records under this name, or one that Kafka would take for it.
    """
    for owned, what in OWNED.items():
        if name.replace(".", "_") == owned:
            like = "" if name == owned else f", like {owned!r},"
            raise InvalidError(
                f"the topic name {name!r}{like} belongs to the log itself, which keeps {what} there: read it, "
                "but use another name to create, alter, write or delete one"
            )


def check_partition_count(name: str, count: int) -> None:
    """Refuses a number of partitions that no topic may have; `name` is the argument's.

    Raises:
        InvalidError: below 1 or above `PARTITIONS_MAX`.
        TypeError: not an int.
    """
    # The user's argument, whatever its annotation says.
    if isinstance(count, bool) or not isinstance(count, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} is an int, not {type(count).__name__}")
    if not 1 <= count <= PARTITIONS_MAX:
        raise InvalidError(f"a topic of {count} partitions cannot be made: give 1 to {PARTITIONS_MAX}")


def check_note(topic: str, note: str) -> None:
    """Refuses a note that is too long to be kept beside a topic.

    Raises:
        InvalidError: over 4,096 bytes.
    """
    size = len(note.encode())
    if size > NOTE_BYTES_MAX:
        raise InvalidError(f"the note for topic {topic!r} has {size} bytes: shorten it to {NOTE_BYTES_MAX}")


def near_names(name: str, names: Iterable[str]) -> str:
    """Names like `name` as the tail of an error's message: `; did you mean 'clicks'?`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(each) for each in close)}?" if close else ""


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError("it is not a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"not between {low} and {high}")
        return number

    return parse


def _ratio(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("it is not a number") from None
    if not 0.0 <= number <= 1.0:
        raise ValueError("not between 0 and 1")
    return number


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"not one of {', '.join(allowed)}")
        return text

    return parse


def _policies(text: str) -> str:
    parts = sorted({part.strip() for part in text.split(",")})
    if not parts or not set(parts) <= {"compact", "delete"}:
        raise ValueError("not delete, compact, or both with a comma")
    return ",".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """The configuration of a topic: Kafka's names with `_` for `.`; times in ms, sizes in bytes, -1 = no limit."""

    cleanup_policy: str = "delete"
    compression_type: str = "producer"
    delete_retention_ms: int = 86_400_000
    file_delete_delay_ms: int = 60_000
    index_interval_bytes: int = 4096
    max_compaction_lag_ms: int = INT64_MAX
    max_message_bytes: int = 1_048_588
    message_timestamp_after_max_ms: int = 3_600_000
    message_timestamp_before_max_ms: int = INT64_MAX
    message_timestamp_type: str = "CreateTime"
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    retention_bytes: int = -1
    retention_ms: int = -1
    segment_bytes: int = 1_073_741_824
    segment_index_bytes: int = 10_485_760
    segment_ms: int = 604_800_000

    @classmethod
    def parse(cls, config: Mapping[str, Any] | None) -> "TopicConfig":
        """A configuration from Kafka's names; values as text or as the numbers themselves.

        Raises:
            InvalidError: an unknown name (near ones are listed) or a value out of range.
        """
        values: dict[str, Any] = {}
        for name, value in (config or {}).items():
            parse = _PARSERS.get(name)
            if parse is None:
                near = (
                    near_names(str(name), _PARSERS)
                    or f": the {len(_PARSERS)} that there are stand in describe_topic(…).config"
                )
                raise InvalidError(f"there is no topic configuration {name!r}{near}")
            if isinstance(value, list | tuple) and name != "cleanup.policy":
                raise InvalidError(
                    f"the topic configuration {name}={value!r} cannot be used: it is a list, and only "
                    "cleanup.policy is one; give a value"
                )
            try:
                values[name.replace(".", "_")] = parse(_text(value))
            except (ValueError, TypeError) as error:
                raise InvalidError(
                    f"the topic configuration {name}={value!r} cannot be used: {error}; give another value"
                ) from None
        return cls(**values)

    def as_strings(self) -> dict[str, str]:
        """Every value, defaults included, under Kafka's names."""
        return dict(_as_strings(self))

    @property
    def compacted(self) -> bool:
        """Whether the policy keeps the last value per key."""
        return "compact" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How much time a segment may span: no record may wait longer than the compaction lag in the active one."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.compacted else self.segment_ms

    @property
    def deleted(self) -> bool:
        """Whether the policy deletes old segments by time and size."""
        return "delete" in self.cleanup_policy

    @property
    def log_append_time(self) -> bool:
        """Whether the log's clock replaces the producer's timestamps."""
        return self.message_timestamp_type == "LogAppendTime"


def check_is_mapping(config: object) -> None:
    """Raises TypeError for a configuration that is none."""
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f'config is a dict such as {{"retention.ms": 1000}}, not {config!r}')


def config_strings(config: Mapping[str, Any] | None) -> dict[str, str]:
    """The values given, checked and as text, without the defaults: what the metadata log keeps.

    Raises:
        InvalidError: as `TopicConfig.parse`, and values that contradict each other. Only here, where they are given: a
            log that has some already still opens.
        TypeError: it is no mapping.
    """
    check_is_mapping(config)
    parsed = TopicConfig.parse(config)
    if parsed.min_compaction_lag_ms > parsed.max_compaction_lag_ms:  # Kafka: LogConfig.validateValues
        raise InvalidError(
            f"min.compaction.lag.ms={parsed.min_compaction_lag_ms} is more than max.compaction.lag.ms="
            f"{parsed.max_compaction_lag_ms}: a record would have to be compacted before it may be; lower the first or "
            "raise the second"
        )
    every = parsed.as_strings()
    return {name: every[name] for name in (config or {})}


def check_same(have: TopicConfig, name: str, count: int, partitions: int, config: Mapping[str, str]) -> None:
    """Refuses to take a topic of `count` partitions for one that was asked for with other numbers.

    One partition is what is asked for where nothing is said, so it fits any count.

    Raises:
        InvalidError: it differs; how is in the message.
    """
    values = have.as_strings()
    differ = [f"{each}={values[each]} and not {value}" for each, value in config.items() if values[each] != value]
    if partitions not in {1, count}:
        differ.insert(0, f"partitions={count} and not {partitions}")
    if differ:
        raise InvalidError(
            f"the topic {name!r} exists with {', '.join(differ)}: ask for what it has, change it with "
            "create_partitions or alter_topic, or delete it first"
        )


# An app looks at each of its topics at every commit.
@lru_cache(maxsize=256)
def _as_strings(config: TopicConfig) -> Mapping[str, str]:
    return {each.name.replace("_", "."): _text(getattr(config, each.name)) for each in fields(config)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # a list of the user's
    return str(value)


_SIZE = _integer(0, INT32_MAX)
_TIME = _integer(0, INT64_MAX)
_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "cleanup.policy": _policies,
    "compression.type": _one_of("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    "delete.retention.ms": _TIME,
    "file.delete.delay.ms": _TIME,
    "index.interval.bytes": _SIZE,
    "max.compaction.lag.ms": _integer(1, INT64_MAX),
    "max.message.bytes": _SIZE,
    "message.timestamp.after.max.ms": _TIME,
    "message.timestamp.before.max.ms": _TIME,
    "message.timestamp.type": _one_of("CreateTime", "LogAppendTime"),
    "min.cleanable.dirty.ratio": _ratio,
    "min.compaction.lag.ms": _TIME,
    "retention.bytes": _integer(-1, INT64_MAX),
    "retention.ms": _integer(-1, INT64_MAX),
    "segment.bytes": _integer(14, INT32_MAX),  # Kafka's own floor
    "segment.index.bytes": _integer(12, INT32_MAX),
    "segment.ms": _integer(1, INT64_MAX),
}
