"""Where records come in, go out and part ways, as data: source, sink, repartition, split, late, merge.

What they do is built beside their data by the runtime.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from tailrace.log.errors import TopologyError
from tailrace.streams.program.results import truth
from tailrace.streams.program.topic import Topic
from tailrace.streams.program.topology import Forward, Operator, Output
from tailrace.streams.values.codec import TypeCodec, type_name, windowed_codec, windowed_form
from tailrace.streams.values.derived import UNKNOWN, Slot, WindowedSlot
from tailrace.streams.values.fitting import fits
from tailrace.streams.values.place import function_name


@dataclass(frozen=True, kw_only=True)
class Source(Operator):
    """Reads one topic. Its output "errors" has the records that could not be decoded: raw key, raw value.

    A graph has one source per topic, however often the program names it.
    """

    topic: Topic[Any, Any]

    kind: ClassVar[str] = "source"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The records, and those that could not be decoded."""
        return ("main", "errors")

    @property
    def reads(self) -> Topic[Any, Any]:
        """The topic."""
        return self.topic

    def facts(self) -> dict[str, Any]:
        """The types, and whether values bring their own time."""
        types = {"key": self.topic.key_codec.name, "value": self.topic.value_codec.name}
        return types | ({"timestamp": function_name(self.topic.timestamp)} if self.topic.timestamp else {})


@dataclass(frozen=True, kw_only=True)
class Sink(Operator):
    """Writes a stream to a topic, or to the one that a function of key and value gives.

    Exactly one of `topic` and `choose` is there. `key` is the slot of the stream's key.
    """

    topic: Topic[Any, Any] | None
    choose: Callable[[Any, Any], Topic[Any, Any]] | None
    key: Slot
    value: Slot

    kind: ClassVar[str] = "sink"
    effect: ClassVar[bool] = True

    @property
    def writes(self) -> Topic[Any, Any] | None:
        """The topic, where it does not depend on the record."""
        return self.topic

    def codecs(self, topic: Topic[Any, Any]) -> tuple[TypeCodec, TypeCodec]:
        """The codecs of key and value for a topic: its own, but the window of a windowed key is the stream's."""
        form = windowed_form(topic.key_codec)
        if form is not None and isinstance(self.key, WindowedSlot):
            return windowed_codec(form.inner, self.key.window), topic.value_codec
        return topic.key_codec, topic.value_codec

    def facts(self) -> dict[str, Any]:
        """The function that chooses, or the types written."""
        if self.topic is None:
            return {"topic chosen by": function_name(self.choose)} if self.choose else {}
        key, value = self.codecs(self.topic)
        return {"key": key.name, "value": value.name}

    def check(self, inputs: int) -> None:
        """The topic must be able to hold what the stream's types say."""
        del inputs
        if self.topic is None:
            return
        if isinstance(self.key, WindowedSlot) and self.topic.key_codec.plain is not None:
            raise TopologyError(
                f"to({self.topic.name!r}) at {self.place} is given windowed keys, and that topic, declared at "
                f"{self.topic.place}, has keys of type {self.topic.key_codec.name}: declare key=Windowed[…], or take "
                "the key out of the window with map_kv"
            )
        for slot, takes in ((self.key, self.topic.key_takes), (self.value, self.topic.value_takes)):
            for source in slot.sources:
                self._check_fits(self.topic, source, takes)

    def _check_fits(self, topic: Topic[Any, Any], slot: Slot, takes: Any) -> None:
        of = slot.of
        if isinstance(slot, WindowedSlot):
            of, takes = slot.inner.of, (*get_args(takes), Any)[0]
        if of is not UNKNOWN and not fits(of, takes):
            raise TopologyError(
                f"to({topic.name!r}) at {self.place} is given {slot.part}s of type {type_name(of)}, from {slot.where}, "
                f"and that topic, declared at {topic.place}, has {slot.part}s of type {type_name(takes)}: name their "
                f"type with {slot.named_by} there, map them to that type, or write to another topic"
            )


@dataclass(frozen=True, kw_only=True)
class Repartition(Operator):
    """Sends every record to the partition of its key: written by one sub-topology and read by another.

    `partitions` None: as many as the largest input has.
    """

    topic_name: str
    """What stands between the app and `-repartition`."""
    partitions: int | None
    key: Slot
    value: Slot
    keeps_null_keys: bool = False
    """Whether records with a null key go to the partition with the number of their own; else they go no further.

    What goes no further is counted as "null_key"."""

    kind: ClassVar[str] = "repartition"

    @property
    def repartition(self) -> str:
        """The name."""
        return self.topic_name

    def facts(self) -> dict[str, Any]:
        """The types that travel, and its partitions, where they are given."""
        types = {"key": self.key.codec.name, "value": self.value.codec.name}
        return types | ({"partitions": self.partitions} if self.partitions is not None else {})

    def check(self, inputs: int) -> None:
        """Its key and its value must have codecs."""
        del inputs
        _ = self.key.codec, self.value.codec


@dataclass(frozen=True, kw_only=True)
class Late(Operator):
    """The late records of a windowed grouping: passes on what comes.

    Its parent is output "late" of the first aggregate that the grouping makes: the others find the same records late.
    """

    def check(self, inputs: int) -> None:
        """Without an aggregate nothing can be late."""
        if not inputs:
            raise TopologyError(
                f"late at {self.place} belongs to a windowed grouping of which nothing is made: call count(), reduce() "
                "or aggregate() on the same object"
            )


@dataclass(frozen=True, kw_only=True)
class Merge(Operator):
    """Passes on what comes from any of its parents."""


@dataclass(frozen=True, kw_only=True)
class Split(Operator):
    """Sends each record to the first branch whose function is true for its value, else to the default branch, if any.

    Each branch is an output of that name.
    """

    branches: Mapping[str, Callable[[Any], object]]
    default: str | None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The branches."""
        return (*self.branches, *([] if self.default is None else [self.default]))

    def facts(self) -> dict[str, Any]:
        """The functions' names."""
        return {"branches": ", ".join(f"{name} ({function_name(f)})" for name, f in self.branches.items())}

    def route(self, output: Callable[[Output], Forward]) -> Forward:
        """The link; output gives what takes a branch's records."""
        branches = [(f, output(name)) for name, f in self.branches.items()]
        rest = None if self.default is None else output(self.default)

        def split_link(key: Any, value: Any, timestamp_ms: int) -> None:
            for f, forward in branches:
                taken = f(value)
                if taken is True or (taken is not False and truth(taken)):
                    forward(key, value, timestamp_ms)
                    return
            if rest is not None:
                rest(key, value, timestamp_ms)

        return split_link
