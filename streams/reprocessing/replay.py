"""A replay: a program over input that is there already, beside the one that runs, into outputs and state of its own.

    begun -> caught up -> (promoted <-> undone)

1. A replay is an app of its own, `<app>.<into>`: a group, internal topics, and a directory of stores under that name,
   and outputs `<topic>.<into>`. Nothing of the app that it stands beside is written.
2. What it was begun with (since, until, the names that it needs) is written down before its first offset is. Whoever
   comes with the same words goes on where it was, exactly once, as any app does; with others, he is refused.
3. It reads all of what it says it reads: input that retention has taken is named, never left out in silence.
4. Beside running apps it rests for a part of the time, so that they keep their latency (precedence).

Not here: comparing (difference), the switch (promotion), the graph under other names (replayed).
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace as replace_struct

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.clock import Clock
from tailrace.log.disk import RealDisk
from tailrace.log.errors import InvalidError, TopicNotFoundError, TopologyError
from tailrace.log.record import Instant, TopicPartition, instant_ms
from tailrace.state.restore import Progress
from tailrace.streams.chain.bad_records import dead_letter_topic
from tailrace.streams.chain.clocks import NEVER, decode_clocks
from tailrace.streams.chain.silence import copy_silences
from tailrace.streams.operators.table import TableSource
from tailrace.streams.planning.topics_in_use import forget_in_memory
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.program.topology import Topology, silences_topic
from tailrace.streams.reprocessing.difference import Difference, Range, difference
from tailrace.streams.reprocessing.progress import ReplayProgress
from tailrace.streams.reprocessing.promotion import name_before, own_names, promote, switch_back
from tailrace.streams.reprocessing.replayed import Renaming, replayed
from tailrace.streams.reprocessing.reset import delete_all, internal_topics
from tailrace.streams.running.identity import directory
from tailrace.streams.running.precedence import GivingWay, switching_often
from tailrace.streams.running.signals import stopping
from tailrace.streams.running.summary import Summary
from tailrace.streams.start import started
from tailrace.windows.duration import format_instant

_logger = logging.getLogger(__name__)

# What ends as the name of an app's version does would be one.
_INTO: Final = re.compile(r"(?!.*-v\d+$)[A-Za-z0-9_-]{1,64}")

_open: WeakKeyDictionary[Log, set[str]] = WeakKeyDictionary()
_opening = threading.Lock()


class _Begun(msgspec.Struct, frozen=True):
    """What a replay was begun with, as it is kept in the log."""

    since_ms: int | None
    until_ms: int | None
    program: str
    outputs: list[str]
    """What it may have written: all of them are its own."""

    def means(self, other: "_Begun") -> bool:
        """Whether both are the same work."""
        return replace_struct(self, outputs=[]) == replace_struct(other, outputs=[])


class ReplayJob:
    """A replay, made by `App.replay`; see there."""

    def __init__(
        self,
        topology: Topology,
        options: AppOptions,
        log: Log,
        clock: Clock,
        progress: Callable[[str], Progress] | None,
        *,
        into: str,
        since_ms: int | None,
        until_ms: int | None,
        share: float,
    ) -> None:
        self.app = options.name
        self.name = f"{options.name}.{into}"
        """The app that the replay is: its group, and the beginning of its internal topics' names."""
        self._log = log
        self._into = into
        self._clock = clock
        self._progress = progress
        self._renaming = Renaming(log, into)
        self._topology = replayed(topology, self.name, self._renaming)
        self._own = topology
        self._options = replace(options, name=self.name, log=log)
        self._share = share
        self._begun = _Begun(since_ms, until_ms, _fingerprint(self._topology), self._renaming.made)
        self._record = f"{self.name}-replay"
        self._started: tuple[float, int] | None = None
        self.stopped_by: int | None = None
        """The signal that ended the last `run`."""

    @property
    def outputs(self) -> dict[str, str]:
        """The topics that it writes, by those that they stand beside; without what to(function) chooses."""
        names = {topic.name for node in self._own.nodes if (topic := node.operator.writes) is not None}
        return {name: self._renaming.name(name) for name in sorted(names)}

    # ------------------------------------------------------------ beginning

    def begin(self) -> None:
        """Writes down what is to be done, or finds that it was begun with the same words.

        Raises:
            InvalidError: it was begun with others, its names are taken, input is gone.
            TopologyError: an input is missing.
        """
        known = set(self._log.topics(internal=True))
        before = self._before()
        if before is not None and not before.means(self._begun):
            raise InvalidError(
                f"the replay {self.name!r} was begun with {_words(before)}, and this one has {_words(self._begun)}: "
                "go on with the same, call discard() (`tailrace replay --discard`) to begin it anew, or take another "
                "into="
            )
        starts = self._starts()
        if before is None:
            if self.name in self._log.groups():
                raise InvalidError(
                    f"the replay would be the app {self.name!r}, and there is a group of that name already, which is "
                    "none of a replay: take another into="
                )
            taken = sorted(known & {*self.outputs.values(), *internal_topics(self._log, self.name)})
            if taken:
                raise InvalidError(
                    f"the replay {self.name!r} would write to {taken[0]!r}, which is there already and none of a "
                    "replay: take another into="
                )
            self._log.create_topic(self._record, internal=True, exist_ok=True)
            self._write_down()
        if not self._log.committed_offsets(self.name):
            self._log.commit_offsets(self.name, {each: CommittedOffset(at) for each, at in starts.items()})

    def _before(self) -> _Begun | None:
        known = self._record in self._log.topics(internal=True)
        note = self._log.describe_topic(self._record).note if known else ""
        return msgspec.json.decode(note, type=_Begun) if note else None

    def _write_down(self) -> None:
        before = self._before()
        outputs = {*self._renaming.made, *(() if before is None else before.outputs)}
        made = replace_struct(self._begun, outputs=sorted(outputs))
        self._log.note_topic(self._record, msgspec.json.encode(made).decode())

    def _starts(self) -> dict[TopicPartition, int]:
        """Where reading begins; raises where something of it is gone. Tables are read from their beginning."""
        found: dict[TopicPartition, int] = {}
        committed = self._log.committed(self.name)
        for topic, tables in self._inputs().items():
            since_ms = None if tables else self._begun.since_ms
            first = self._log.offsets(topic, "earliest")
            for partition, start in first.items():
                at = committed.get(partition)
                if at is not None and at < start:
                    raise self._gone(partition, at, start)
                if at is None and start > 0 and not tables:
                    self._check_kept(partition, start)
            found.update(first if since_ms is None else self._log.offsets(topic, since_ms))
        return found

    def _inputs(self) -> dict[str, bool]:
        """The topics that are read and not written; whether all that is made of one is a table."""
        found: dict[str, bool] = {}
        for node in self._topology.nodes:
            topic = node.operator.reads
            if topic is None or topic.name in self._topology.inner_topics:
                continue
            if topic.name not in self._log.topics(internal=True):
                raise TopologyError(
                    f"there is no topic {topic.name!r} in this log; it is read at {node.place}, declared at "
                    f"{topic.place}; an input is never created by itself"
                )
            children = self._topology.children(node.id)
            found[topic.name] = bool(children) and all(isinstance(each.operator, TableSource) for each in children)
        return found

    def _check_kept(self, partition: TopicPartition, start: int) -> None:
        """Raises InvalidError where records that are asked for were deleted before the replay began."""
        first_ms = self._first_ms(partition, start)
        since_ms = self._begun.since_ms
        if since_ms is None or (first_ms is not None and since_ms < first_ms):
            raise self._gone(partition, 0, start)

    def _refuse_deleted(self, partition: TopicPartition, _app: str, first: int, start: int) -> None:
        raise self._gone(partition, first, start)

    def _gone(self, partition: TopicPartition, first: int, start: int) -> InvalidError:
        first_ms = self._first_ms(partition, start)
        left = "nothing is left" if first_ms is None else f"what is left begins at {format_instant(first_ms)}"
        since = "" if first_ms is None else f" since={first_ms} replays what there is;"
        return InvalidError(
            f"the replay {self.name!r} reads {partition} from offset {first}, and {start - first:,} records there "
            f"({first} to {start - 1}) were deleted by retention: {left};{since} a replay that had begun is to be "
            "discarded first"
        )

    def _first_ms(self, partition: TopicPartition, start: int) -> int | None:
        with self._log.consumer(reset="earliest") as consumer:
            consumer.assign([partition])
            consumer.seek(partition, start)
            found = consumer.poll(0, max_records=1)
        return found[0].timestamp_ms if found else None

    # ------------------------------------------------------------ running

    def run(self) -> Summary:
        """Works through the input up to where it ends now (or `until`), and returns when that is committed.

        To call it again goes on with what has come since. A run that was stopped or killed goes on where it was.

        Raises:
            InvalidError: input that is still to be read was deleted, before or while it runs; it runs already.
            DiskFullError: no room: it stands at its last commit.
            TaskError, DecodeError: as `App.run`.
        """
        self._check_not_promoted("run again by itself: run the app")
        self.begin()
        for topic in self._inputs():
            copy_silences(self._log, silences_topic(self.app, topic), silences_topic(self.name, topic))
        self._started = (self._clock.monotonic(), self._records())
        try:
            with (
                started(
                    self._topology,
                    self._options,
                    self._clock,
                    self._progress,
                    gives_way=GivingWay(self._log, self._share, self._clock),
                    deleted=self._refuse_deleted,
                ) as runner,
                stopping(runner.stop) as signals,
                switching_often(),
            ):
                summary = runner.run(until_end=True, stop_at=self._ends())
                self.stopped_by = signals[0] if signals else None
        finally:
            self._started = None
            if len(self._renaming.made) > len(self.outputs):  # what to(function) chose
                self._write_down()
        return summary

    def _ends(self) -> dict[TopicPartition, int]:
        """Where the inputs end for the replay."""
        until_ms = self._begun.until_ms
        return {
            partition: end
            for topic in self._inputs()
            for partition, end in self._log.offsets(topic, "latest" if until_ms is None else until_ms).items()
        }

    def _records(self) -> int:
        first, committed = self._first(), self._log.committed(self.name)
        return sum(max(committed.get(each, at) - at, 0) for each, at in first.items())

    def _first(self) -> dict[TopicPartition, int]:
        return {
            partition: at
            for topic, tables in self._inputs().items()
            for partition, at in self._log.offsets(
                topic, "earliest" if tables or self._begun.since_ms is None else self._begun.since_ms
            ).items()
        }

    def progress(self) -> ReplayProgress:
        """How far it has come; any thread may ask while it runs."""
        first, ends = self._first(), self._ends()
        records = self._records()
        total = sum(max(end - first[each], 0) for each, end in ends.items())
        rate = 0.0
        if self._started is not None:
            began, before = self._started
            passed = self._clock.monotonic() - began
            rate = (records - before) / passed if passed > 0 else 0.0
        left = (total - records) / rate if rate > 0 else None
        return ReplayProgress(records, total, rate, left, self._event_time_ms(ends))

    def _event_time_ms(self, ends: Mapping[TopicPartition, int]) -> int | None:
        committed = self._log.committed_offsets(self.name)
        times = [
            decode_clocks(found.metadata)[0]
            for partition, end in ends.items()
            if end > 0 and (found := committed.get(partition)) is not None and found.metadata
        ]
        return min((each for each in times if each != NEVER), default=None)

    def left(self) -> int:
        """How many offsets of the input are still to be worked on."""
        committed = self._log.committed(self.name)
        first = self._first()
        return sum(max(end - committed.get(each, first[each]), 0) for each, end in self._ends().items())

    # ------------------------------------------------------------ what came of it

    def diff(
        self, topic: Topic[Any, Any], *, tolerance: float = 0.0, sequences: bool = False, samples: int = 20
    ) -> Difference:
        """Compares what the replay wrote with what stands in one of the app's outputs: by key, the last value of each.

        Of a replay that was promoted: with what stood there before. A null value means that there is no such key;
        records without a key are compared by their values, as many of each. With `since=` or `until=` only records of
        that time are looked at, in both. Memory stays flat, whatever the number of keys: what goes beyond is in a
        scratch file beside the app's state, about as large as the newest value of each key, on both sides.

        Args:
            topic: the app's output.
            tolerance: numbers, wherever they stand in a value, are the same when they differ by no more than this, or
                by no more than this share of the larger.
            sequences: compares all values of a key, in their order, in place of the last one. The cache merges updates
                between two commits, so of what tables send only programs without one repeat the sequence.
            samples: how many keys that differ are kept as examples.

        Raises:
            InvalidError: the program does not write that topic.
            TopicNotFoundError: one of the two is not there.
            ValueError: a tolerance below 0.
            DiskFullError: no room for the scratch file.
        """
        if not is_topic(topic):
            raise TypeError(f"diff takes a topic, as app.topic() returns it, not {topic!r}")
        declared = self.topic(topic.name)
        before, after = topic.name, self.outputs[topic.name]
        if self.promoted:
            before = name_before(before, self._into)  # where readers of the topic are now is what the replay wrote
        known = set(self._log.topics())
        for each in (before, after):
            if each not in known:
                why = "any more" if self.promoted else "yet"
                what = "" if self.promoted else ": run it first"
                raise TopicNotFoundError(f"there is no topic {each!r} {why}, so there is nothing to compare{what}")
        state = self._options.state_dir or self._log.state_directory
        return difference(
            self._log,
            before,
            after,
            declared,
            tolerance=tolerance,
            sequences=sequences,
            samples=samples,
            within=Range(self._begun.since_ms, self._begun.until_ms),
            disk=None if state is None else RealDisk(),
            directory=state or "scratch",
        )

    # ------------------------------------------------------------ the switch

    @property
    def promoted(self) -> bool:
        """Whether the app goes on as this replay, and its readers read what it wrote."""
        return self.name in self._log.switches()

    def _check_not_promoted(self, what: str) -> None:
        if self.promoted:
            raise InvalidError(f"the replay {self.name!r} was promoted, and cannot be {what}")

    def promote(self, *, behind: int = 0) -> None:
        """Puts the replay in the place of the app and its outputs, in one step; on disk when the call returns.

        Who names an output (`counts`), or the app's dead letters, reads and writes what the replay wrote (`counts.v2`)
        from now on; what stood there is found as `counts.before-v2`. Groups that read go on there, behind what is no
        younger than what they had read. The app's own name stands for the replay: its next run, of the new program,
        goes on with the replay's offsets and state. A crash leaves all of it or nothing.

        Args:
            behind: how many records of its input may be left: where input comes all the time, some are whenever anybody
                looks. The app's next run works on them.

        Raises:
            InvalidError: more input is left to be worked on (call `run`), the app or the replay runs, it was promoted,
                it wrote nothing, the name for what stood there is taken.
            ValueError: `behind` below 0.
            RetriableError: a transaction stays open in an output.
        """
        if behind < 0:
            raise ValueError(f"promote(behind={behind}) is below 0")
        self._check_not_promoted("promoted twice")
        before = self._before()
        if before is None or not self._log.committed_offsets(self.name):
            raise InvalidError(
                f"the replay {self.name!r} has not begun, so there is nothing to promote: run() it first"
            )
        if not before.means(self._begun):
            raise InvalidError(f"the replay {self.name!r} was begun with {_words(before)}, and this one is another")
        left = self.left()
        if left > behind:
            raise InvalidError(
                f"the replay {self.name!r} is not at the end: {left:,} records of its input are left; run() it to "
                "there, or say with behind= how many may be left"
            )
        outputs = {name.removesuffix(f".{self._into}"): name for name in before.outputs}
        if dead_letter_topic(self.name) in self._log.topics():
            outputs[dead_letter_topic(self.app)] = dead_letter_topic(self.name)
        promote(self._log, self.app, self.name, self._into, outputs, own_names(self._own, self.app, self.name))

    def undo(self) -> None:
        """Takes `promote` back, in one step: names, readers, the app's offsets and state are what they were.

        What the app had worked on in the meantime it works on again, as the old program. Readers go back to the old
        topics, behind what is no younger than what they have read. The replay stays, and may be promoted again.

        Raises:
            InvalidError: it was not promoted, the app runs, a later promotion has its names, an old topic was deleted.
            RetriableError: a transaction stays open in an output.
        """
        if not self.promoted:
            raise InvalidError(f"the replay {self.name!r} is not promoted, so there is nothing to undo")
        switch_back(self._log, self.app, self.name)

    def drop_old(self) -> None:
        """Deletes what a promoted replay has replaced: old outputs, internal topics, offsets and state. No way back.

        To be called again where it was broken off.

        Raises:
            InvalidError: it was not promoted.
        """
        if not self.promoted:
            raise InvalidError(f"the replay {self.name!r} is not promoted, so it has replaced nothing")
        root = self._options.state_dir or self._log.state_directory
        for group in self._log.drop_replaced(self.name):
            forget_in_memory(self._log, group)
            if root is not None:
                RealDisk().remove_tree(directory(root, group))

    def topic(self, name: str) -> Topic[Any, Any]:
        """One of the app's outputs, by its name.

        Raises:
            InvalidError: the program does not write it.
        """
        for node in self._own.nodes:
            found = node.operator.writes
            if found is not None and found.name == name:
                return found
        raise InvalidError(
            f"app {self.app!r} does not write {name!r}, so there is nothing to compare: it writes "
            f"{', '.join(self.outputs) or 'nothing that is known beforehand'}"
        )

    def discard(self) -> None:
        """Deletes all that the replay made: outputs, internal topics, state, offsets; nothing else is touched.

        To be called again where it was broken off.

        Raises:
            InvalidError: it runs, or what has its name, or its state directory, is none of a replay.
            LogLockedError: another process uses the state directory.
        """
        self._check_not_promoted("discarded: undo() first")
        before = self._before()
        if before is None and (self.name in self._log.groups() or internal_topics(self._log, self.name)):
            raise InvalidError(
                f"{self.name!r} is the name of a group, or of an app's topics, and none of a replay: there is nothing "
                "to discard, and nothing was deleted"
            )
        delete_all(self._options, self._log, [] if before is None else before.outputs, last=self._record)


@contextmanager
def replaying(
    topology: Topology,
    options: AppOptions,
    clock: Clock,
    progress: Callable[[str], Progress] | None,
    *,
    since: Instant | None,
    until: Instant | Literal["end"],
    into: str,
    share: float,
) -> Generator[ReplayJob]:
    """Opens the log and begins the job, or goes on with it; see `App.replay`."""
    since_ms, until_ms = _times(since, until)
    if not isinstance(into, str) or not _INTO.fullmatch(into):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
        raise ValueError(
            f"replay(into={into!r}) cannot be part of a name: give letters, digits, '_' and '-', up to 64, not ending "
            "in -v and a number, as an App(version=…) does"
        )
    if not 0 < share <= 1:
        raise ValueError(f"replay(share={share!r}) is not above 0 and up to 1")
    with ExitStack() as stack:
        own = options.log
        log = own if isinstance(own, Log) else stack.enter_context(Log.open(own))
        job = ReplayJob(
            topology, options, log, clock, progress, into=into, since_ms=since_ms, until_ms=until_ms, share=share
        )
        with _opening:
            names = _open.setdefault(log, set())
            if job.name in names:
                raise InvalidError(
                    f"there is a replay {job.name!r} at work in this process: wait for it, or take another into="
                )
            names.add(job.name)
        stack.callback(names.discard, job.name)
        yield job


def _times(since: Instant | None, until: Instant | Literal["end"]) -> tuple[int | None, int | None]:
    if isinstance(until, str) and until != "end":
        raise ValueError(f'replay(until={until!r}): "end", an aware datetime or milliseconds')
    since_ms = None if since is None else instant_ms(since)
    until_ms = None if isinstance(until, str) else instant_ms(until)
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise ValueError(
            f"replay(since={since!r}, until={until!r}) ends before it begins: give an until that is later than since"
        )
    return since_ms, until_ms


def _words(begun: _Begun) -> str:
    since = "the beginning" if begun.since_ms is None else format_instant(begun.since_ms)
    until = "the end" if begun.until_ms is None else format_instant(begun.until_ms)
    return f"the input from {since} to {until} and program {begun.program}"


def _fingerprint(topology: Topology) -> str:
    """What a program is told by: the names that it reads, writes and keeps its state under."""
    names = [
        *(f"reads {topic.name}" for node in topology.nodes if (topic := node.operator.reads) is not None),
        *(f"writes {topic.name}" for node in topology.nodes if (topic := node.operator.writes) is not None),
        *(f"keeps {store} in {sub.id}" for sub in topology.subtopologies for store in sub.stores),
        *(
            f"sends through {cut.operator.repartition}"
            for sub in topology.subtopologies
            for cut in sub.repartitions_read
        ),
    ]
    return hashlib.blake2b("\n".join(sorted(set(names))).encode(), digest_size=4).hexdigest()
