"""What is known of topics: records of one internal log, and the table that they add up to.

1. A record that is on disk is the commit point: the topic exists, or is gone, from then on, whatever folders there are.
2. The table is the sum of the records in order; a record holds the whole state of its topic, so the last one per topic
   counts and the log can be compacted by key.
3. A record that this version does not understand refuses the log: to leave it out could lose a topic.

Not here: folders and files (`broker`). The records lie in `__cluster_metadata-0` as any other: key = the topic's id in
Kafka's text form, value = one JSON object whose `kind` is `format` (the first of all, with key `format`), `topic`,
`deleted`, `producer_ids` (with key `producer_ids`: Kafka's ProducerIdsRecord), or `aliases` (with key `aliases`: all of
them).
"""

import base64
import uuid
from collections.abc import Callable
from typing import Final

import msgspec

from tailrace.log.errors import InvalidError, TopicExistsError, TopicNotFoundError
from tailrace.log.topic import TopicConfig, near_names
from tailrace.log.topics.aliases import AliasesRecord, without

FORMAT_VERSION: Final = 1
FORMAT_KEY: Final = b"format"
PRODUCER_IDS: Final = 1000  # Kafka's ProducerIdsBlock: one record for so many; those not used are lost at a close
PRODUCER_IDS_KEY: Final = b"producer_ids"
ALIASES_KEY: Final = b"aliases"


class FormatRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="format"):
    """The first record: the version of everything after it."""

    version: int


class TopicRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="topic"):
    """A topic as it was created or altered. `config` holds only what was given, `note` what its owner writes there."""

    name: str
    topic_id: str
    partitions: int
    config: dict[str, str]
    internal: bool = False
    note: str | msgspec.UnsetType = msgspec.UNSET
    """Left out where there is none, as in the records of logs that knew of no notes."""


class DeletedRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="deleted"):
    """A topic is gone; one of the same name may follow with another id."""

    name: str
    topic_id: str


class ProducerIdsRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="producer_ids"):
    """Producer ids below `next_producer_id` have been given out, or never will be."""

    next_producer_id: int


MetadataRecord = FormatRecord | TopicRecord | DeletedRecord | ProducerIdsRecord | AliasesRecord
_DECODER: msgspec.json.Decoder[MetadataRecord] = msgspec.json.Decoder(MetadataRecord)


def encode_record(record: MetadataRecord) -> tuple[bytes, bytes]:
    """Key and value of a metadata record."""
    match record:
        case FormatRecord():
            key = FORMAT_KEY
        case ProducerIdsRecord():
            key = PRODUCER_IDS_KEY
        case AliasesRecord():
            key = ALIASES_KEY
        case _:
            key = record.topic_id.encode()
    return key, msgspec.json.encode(record)


def decode_record(value: bytes) -> MetadataRecord:
    """A metadata record from its value.

    Raises:
        InvalidError: of a newer format, or nothing that this version knows.
    """
    try:
        record = _DECODER.decode(value)
    except msgspec.DecodeError as error:
        raise InvalidError(
            f"the topic metadata of this log has a record that format {FORMAT_VERSION} does not know ({error}): "
            "open the log with the version of tailrace that wrote it, or a later one"
        ) from None
    if isinstance(record, FormatRecord) and record.version > FORMAT_VERSION:
        raise InvalidError(newer_format(record.version, FORMAT_VERSION, "the topic metadata"))
    return record


def newer_format(version: int | str, known: int, where: str) -> str:
    """The message for a log of a later version than this program's."""
    return (
        f"{where} of this log has format version {version}, and this tailrace reads up to {known}: open it with the "
        "version that wrote it, or a later one"
    )


def new_topic_id() -> str:
    """A new id in Kafka's text form; by Kafka's own rule none that begins with `-`, like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


class TopicTable:
    """The topics of a log by name: the sum of the metadata records applied so far."""

    def __init__(self) -> None:
        self._topics: dict[str, TopicRecord] = {}
        self._configs: dict[str, TopicConfig] = {}
        self.next_producer_id = 0
        self.aliases = AliasesRecord()

    def apply(self, record: MetadataRecord) -> None:
        """Adds the next record of the log."""
        match record:
            case TopicRecord(name=name):
                self._configs[name] = TopicConfig.parse(record.config)
                self._topics[name] = record
            case DeletedRecord(name=name, topic_id=topic_id):
                if name in self._topics and self._topics[name].topic_id == topic_id:
                    internal = self._topics.pop(name).internal
                    del self._configs[name]
                    self.aliases = without(self.aliases, name, self._topics, internal=internal)
            case ProducerIdsRecord(next_producer_id=next_producer_id):
                self.next_producer_id = next_producer_id
            case AliasesRecord():
                self.aliases = record
            case FormatRecord():
                pass

    def behind(self, name: str) -> str:
        """The name of the topic that a name stands for: its own, as a rule."""
        return self.aliases.topics.get(name, name)

    def new_producer_ids(self) -> tuple[ProducerIdsRecord, range]:
        """The record that would give out the next block of producer ids, and the block; not applied."""
        begin, end = self.next_producer_id, self.next_producer_id + PRODUCER_IDS
        return ProducerIdsRecord(end), range(begin, end)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a topic."""
        return name in self._topics

    def get(self, name: str) -> TopicRecord | None:
        """The topic's record, or None."""
        return self._topics.get(name)

    def require(self, name: str) -> TopicRecord:
        """The topic's record.

        Raises:
            TopicNotFoundError: with near names.
        """
        record = self._topics.get(name)
        if record is None:
            near = near_names(name, self.names(internal=False)) or ": create it first, with create_topic"
            raise TopicNotFoundError(f"there is no topic {name!r} in this log{near}")
        return record

    def config(self, name: str) -> TopicConfig:
        """The topic's configuration, parsed."""
        return self._configs[name]

    def names(self, *, internal: bool) -> list[str]:
        """All names, sorted; internal topics only where asked for."""
        names = {name: record for name, record in self._topics.items() if name not in self.aliases.topics}
        names |= {name: self._topics[behind] for name, behind in self.aliases.topics.items() if behind in self._topics}
        return sorted(name for name, record in names.items() if internal or not record.internal)

    def records(self) -> list[TopicRecord]:
        """Every topic's record, by name."""
        return [self._topics[name] for name in sorted(self._topics)]

    def new_topic(
        self, name: str, partitions: int, config: dict[str, str], *, internal: bool, new_id: Callable[[], str]
    ) -> TopicRecord:
        """The record that would create a topic; not applied.

        Raises:
            TopicExistsError: the name is taken, or differs from one only by `.` for `_` (as in Kafka, whose metrics
                mix them).
        """
        if name in self._topics or name in self.aliases.topics:
            raise TopicExistsError(f"the topic {name!r} exists already: use it, or pass exist_ok=True")
        for other in self._topics:
            if other.replace(".", "_") == name.replace(".", "_"):
                raise TopicExistsError(
                    f"the topic {name!r} is too like {other!r}, as '.' and '_' count as one: choose another"
                )
        return TopicRecord(name=name, topic_id=new_id(), partitions=partitions, config=config, internal=internal)
