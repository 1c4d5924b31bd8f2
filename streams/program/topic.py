"""A topic as a program sees it: its name, the codecs of its two types, and how it is created when missing.

1. A topic is a declaration and holds no data; two declarations of one name in one app must agree.
2. The configuration is checked when it is declared.

Not here: topics in the log (`tailrace.log.topic`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

from tailrace.log.arguments import check_int
from tailrace.log.errors import TopologyError
from tailrace.log.record import Instant
from tailrace.log.topic import check_is_mapping, check_topic_name, config_strings
from tailrace.streams.values.codec import Codec, TypeCodec, codec_of, type_name
from tailrace.streams.values.place import Place, check_function

K = TypeVar("K")
V = TypeVar("V")


class Named(Protocol):
    """What has a name in a program, and no more: a topic, a store."""

    name: str


class Topic(Generic[K, V]):
    """A named topic with typed keys and values; made by `App.topic`."""

    name: str

    def __init__(
        self,
        name: str,
        *,
        key: Any,
        value: Any,
        place: Place,
        timestamp: Callable[[Any], Instant] | None = None,
        partitions: int | None = None,
        compact: bool = False,
        config: Mapping[str, Any] | None = None,
        key_codec: Codec = None,
        codec: Codec = None,
    ) -> None:
        """See `App.topic`, which takes the same arguments.

        Raises:
            InvalidError: the name or the configuration is none of Kafka's.
            TypeError: a type has no codec, or timestamp is no plain function.
            ValueError: partitions below 1, or `compact` beside another cleanup.policy.
        """
        check_topic_name(name)
        if partitions is not None:
            check_int(f"topic {name!r}: partitions", partitions, 1)
        check_is_mapping(config)
        if timestamp is not None:
            check_function(timestamp, f"topic({name!r}, timestamp=…)")
        self.name = name
        self.place = place
        self.key_type = key
        self.value_type = value
        self.key_codec: TypeCodec = _codec(key, key_codec, f"the key of topic {name!r}")
        self.value_codec: TypeCodec = _codec(value, codec, f"the value of topic {name!r}")
        self.key_takes = _takes(key, key_codec)
        """The type that keys must be of; Any where a codec of the user decides."""
        self.value_takes = _takes(value, codec)
        """The same of values."""
        self.timestamp = timestamp
        """Takes a decoded value and returns its event time; None: the record's own timestamp."""
        self.partitions = partitions
        """How many it is created with; None leaves it to whoever creates it."""
        self.config: dict[str, str] = config_strings(
            {**({"cleanup.policy": "compact"} if compact else {}), **(config or {})}
        )
        if compact and "compact" not in (policy := self.config["cleanup.policy"]):
            raise ValueError(f"topic {name!r}: compact=True and cleanup.policy={policy} contradict each other")
        """Kafka's names and values for its creation."""

    def declares(self) -> tuple[object, ...]:
        """What two declarations of one topic must agree in."""
        codecs = (self.key_codec.name, self.value_codec.name)
        return (self.key_type, self.value_type, *codecs, self.timestamp, self.partitions, self.config)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, key={type_name(self.key_type)}, value={type_name(self.value_type)})"


def is_topic(given: object) -> TypeGuard[Topic[Any, Any]]:
    """Whether it is a topic, of whatever types."""
    return isinstance(given, Topic)


def check_declared_alike(topics: Iterable[Topic[Any, Any]]) -> None:
    """Refuses declarations of one topic that differ.

    Raises:
        TopologyError: two do; both places are named.
    """
    first: dict[str, Topic[Any, Any]] = {}
    for topic in topics:
        known = first.setdefault(topic.name, topic)
        if known.declares() != topic.declares():
            raise TopologyError(
                f"topic {topic.name!r} is declared twice, as {known!r} at {known.place} and as {topic!r} at "
                f"{topic.place}, and the two differ in types, codecs, timestamp, partitions or configuration: "
                "declare it once"
            )


def _takes(of: Any, codec: Codec) -> Any:
    return of if codec is None or codec in ("json", "msgpack") else Any


def _codec(of: Any, codec: Codec, what: str) -> TypeCodec:
    try:
        return codec_of(of, codec)
    except TypeError as error:
        raise TypeError(f"{what} has no codec: {error}") from error
