"""Takes an app back to another place in its inputs: what moves, what must go with it, what stays.

State says what the records before an offset came to, so no offset moves without it: the changelogs, the repartitions'
topics and the stores on disk go. What the app wrote for others stays, and so does what it has read.

    marked -> emptied -> set

1. The first thing that is written are the new offsets, all at once, with a mark: from then on the app does not start.
   State and topics go after that, and the mark last. So a reset that is broken off anywhere is seen by the next start,
   and to run it again finishes it: nothing is ever counted on state that stands for other offsets.
2. Nothing is changed while the app has members, nor by a plan.
3. What the app writes and reads again (`through`) is not read a second time beside what is going to be written: it goes
   on at its end, as in Kafka's StreamsResetter.

Not here: the command (cli/reset).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from tailrace.log.client import CommittedOffset, Log
from tailrace.log.disk import RealDisk, join
from tailrace.log.errors import InvalidError, TopicNotFoundError, TopologyError
from tailrace.log.record import Instant, TopicPartition, as_partition
from tailrace.streams.chain.bad_records import dead_letter_topic
from tailrace.streams.planning.lost import BROKEN_OFF
from tailrace.streams.planning.topics_in_use import KnownTopics, forget_in_memory
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.topology import Topology
from tailrace.streams.running import identity
from tailrace.windows.duration import format_ms, to_ms

Target = Literal["earliest", "latest"] | Instant | timedelta | Mapping[TopicPartition, int]

_OF_AN_APP: Final = re.compile(r"-(changelog|repartition)$")
# Part of what it has read, and not of what it makes of that: a reset leaves them.
_SILENCES: Final = re.compile(r"-silences$")


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What a reset does, or did: what moves, what is deleted, what stays. `str()` is for a person."""

    app: str
    offsets: Mapping[TopicPartition, int]
    """Where each input goes on from."""
    deleted: Sequence[str]
    """Topics, and directories of stores."""
    done: bool
    """Whether it was carried out."""
    before: Mapping[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    """Where each input would have gone on from, where it had begun."""
    stays: Sequence[str] = ()
    """The topics that the app reads and writes: they keep what they have."""
    members: Sequence[str] = ()
    """Who runs the app now: with anybody here, nothing is reset."""

    def __str__(self) -> str:
        """The plan, line by line."""
        moves = [
            f"  {partition}  {self.before.get(partition, '-')} -> {offset}"
            for partition, offset in sorted(self.offsets.items())
        ]
        lines = [
            f"reset of app {self.app!r}: {'done' if self.done else 'a plan, nothing was changed'}",
            *_block("moves", moves),
            *_block("deleted" if self.done else "to be deleted", [f"  {name}" for name in self.deleted]),
            *_block("stays as it is", [f"  {name}" for name in self.stays]),
        ]
        if self.members:
            lines += _block("runs now, and must be stopped before", [f"  {member}" for member in self.members])
        return "\n".join(lines)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *lines] if lines else [f"{title}: nothing"]


def plan_reset(topology: Topology, options: AppOptions, log: Log, to: Target, now_ms: int) -> ResetPlan:
    """What a reset would do; changes nothing.

    Raises:
        InvalidError: an offset that its partition does not hold, or of a partition that the app does not read.
        TopologyError: an input is missing.
        TypeError, ValueError: `to` is none of what there is.
    """
    inputs = _inputs(topology, log)
    inner = topology.inner_topics
    known = set(log.topics(internal=True))
    app = options.name
    return ResetPlan(
        app,
        _wanted(log, inputs, inner & known, to, now_ms),
        [*internal_topics(log, app), *_state(options, log)],
        done=False,
        before={each: at for each, at in log.committed(app).items() if each.topic in inputs or each.topic in inner},
        # What silences did to time is part of what was read: it is done again.
        stays=sorted((_declared(topology) | {dead_letter_topic(app), *topology.silences()}) & known),
        members=_members(log, app),
    )


def carry_out(plan: ResetPlan, options: AppOptions, log: Log) -> ResetPlan:
    """Does what a plan says; on disk when the call returns.

    Raises:
        InvalidError: the app runs; its members are named.
        LogLockedError: another process uses the state directory.
    """
    if plan.members:
        raise InvalidError(
            f"app {plan.app!r} runs now, as {', '.join(plan.members)}: stop it first; nothing was changed"
        )
    root, name = _state_directory(options, log), log.group_behind(plan.app)
    # In case an app on another log uses the directory, or it is none of ours: refused before anything changes.
    own = None if root is None else identity.take(RealDisk(), root, name, _cluster(log))
    try:
        log.commit_offsets(plan.app, {each: CommittedOffset(at, -1, BROKEN_OFF) for each, at in plan.offsets.items()})
        topics = set(log.topics(internal=True))
        for each in plan.deleted:
            if each in topics:
                log.delete_topic(each)
            else:
                RealDisk().remove_tree(each)
        for folder in _folders(options, log):
            KnownTopics(RealDisk(), folder).forget()
        forget_in_memory(log, name)
        log.commit_offsets(plan.app, {each: CommittedOffset(at) for each, at in plan.offsets.items()})
    finally:
        if own is not None:
            own.release()
    return ResetPlan(plan.app, plan.offsets, plan.deleted, True, plan.before, plan.stays)


def delete_all(options: AppOptions, log: Log, outputs: Sequence[str], *, last: str) -> None:
    """Deletes an app with all that it made: outputs, internal topics, state directory, offsets; the topic `last` last.

    Broken off, it is seen by the next start as a reset is, and to call it again finishes it.

    Raises:
        InvalidError: it runs, its members are named; or the state directory is none of its own.
        LogLockedError: another process uses the state directory.
    """
    app = options.name
    members = _members(log, app)
    if members:
        raise InvalidError(f"app {app!r} runs now, as {', '.join(members)}: stop it first; nothing was changed")
    root = _state_directory(options, log)
    own = None if root is None else identity.take(RealDisk(), root, app, _cluster(log))
    try:
        committed = log.committed(app)
        known = set(log.topics(internal=True))
        log.commit_offsets(app, {each: CommittedOffset(at, -1, BROKEN_OFF) for each, at in committed.items()})
        for path in _state(options, log):
            RealDisk().remove_tree(path)
        forget_in_memory(log, app)
        topics = internal_topics(log, app) + _topics_of(log, app, _SILENCES)
        for name in [*outputs, *topics, dead_letter_topic(app)]:
            if name in known:
                log.delete_topic(name)
        if app in log.groups():
            log.delete_group(app)
        if root is not None:
            RealDisk().remove_tree(root)
        if last in known:
            log.delete_topic(last)
    finally:
        if own is not None:
            own.release()


def internal_topics(log: Log, app: str) -> list[str]:
    """The changelogs and repartitions of an app in a log, those of stores that it has no more included."""
    return _topics_of(log, app, _OF_AN_APP)


def _topics_of(log: Log, app: str, kind: re.Pattern[str]) -> list[str]:
    longer = [other for other in log.groups() if other.startswith(f"{app}-")]
    return [
        name
        for name in log.topics(internal=True)
        if name.startswith(f"{app}-")
        and kind.search(name)
        and not any(name.startswith(f"{other}-") for other in longer)
        and log.describe_topic(name).internal
    ]


def _inputs(topology: Topology, log: Log) -> dict[str, list[TopicPartition]]:
    """The partitions of what the app reads and does not write itself."""
    found: dict[str, list[TopicPartition]] = {}
    for node in topology.nodes:
        topic = node.operator.reads
        if topic is None or topic.name in topology.inner_topics:
            continue
        try:
            found[topic.name] = sorted(log.offsets(topic.name))
        except TopicNotFoundError as error:
            raise TopologyError(f"{error}; it is read at {node.place}, declared at {topic.place}") from error
    return found


def _declared(topology: Topology) -> set[str]:
    nodes = [node.operator for node in topology.nodes]
    topics = [topic for each in nodes for topic in (each.reads, each.writes) if topic is not None]
    return {topic.name for topic in topics} | {table.topic.name for table in topology.global_tables}


def _members(log: Log, app: str) -> list[str]:
    return [each.member for each in log.describe_group(app).members] if app in log.groups() else []


def _cluster(log: Log) -> str | None:
    return log.cluster_id if log.state_directory is not None else None


def _state_directory(options: AppOptions, log: Log) -> str | None:
    """The app's, where there is one; of the replay, where one was promoted in its place."""
    root = options.state_dir or log.state_directory
    path = None if root is None else identity.directory(root, log.group_behind(options.name))
    return path if path is not None and RealDisk().is_dir(path) else None


def _folders(options: AppOptions, log: Log) -> list[str]:
    """The state directories of all its members."""
    root = _state_directory(options, log)
    if root is None:
        return []
    members = sorted(name for name in RealDisk().list(root) if name.startswith(identity.MEMBER))
    return [each for each in (root, *(join(root, member) for member in members)) if RealDisk().is_dir(each)]


def _state(options: AppOptions, log: Log) -> list[str]:
    """Where stores of the app's tasks lie, of all its members."""
    return [
        join(folder, name)
        for folder in _folders(options, log)
        for name in sorted(RealDisk().list(folder))
        if identity.TASK.fullmatch(name.removesuffix(identity.GOING))
    ]


# ---------------------------------------------------------------- where to


def _wanted(
    log: Log, inputs: Mapping[str, list[TopicPartition]], inner: Iterable[str], to: Target, now_ms: int
) -> dict[TopicPartition, int]:
    wanted: dict[TopicPartition, int] = {}
    for topic in inner:
        wanted.update(log.offsets(topic))
    if isinstance(to, Mapping):
        return wanted | _given(log, inputs, to)
    at = max(now_ms - _back_ms(to), 0) if isinstance(to, timedelta) else to
    for topic in inputs:
        wanted.update(log.offsets(topic, at))
    return wanted


def _back_ms(ago: timedelta) -> int:
    back_ms = to_ms(ago, "reset(to=…)")
    if back_ms < 0:
        raise ValueError(f"reset(to={format_ms(back_ms)}) is a time below 0: give how far back from now")
    return back_ms


def _given(
    log: Log, inputs: Mapping[str, list[TopicPartition]], to: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The offsets that were given, each of which must be there; partitions without one stay where they are."""
    if not to:
        raise ValueError("reset(to={}) names no partition: give at least one, with the offset to go on from")
    read = {partition for partitions in inputs.values() for partition in partitions}
    wanted: dict[TopicPartition, int] = {}
    for each, offset in to.items():
        partition = as_partition(each)
        if partition not in read:
            raise InvalidError(
                f"the app does not read {partition}, so there is nothing to reset: it reads "
                f"{', '.join(map(str, sorted(read))) or 'nothing'}"
            )
        if isinstance(offset, bool) or not isinstance(offset, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"the offset for {partition} is an int, not {offset!r}")
        start, end = (log.offsets(partition.topic, at)[partition] for at in ("earliest", "latest"))
        if not start <= offset <= end:
            raise InvalidError(
                f"there is no offset {offset} in {partition}: it has {start} to {end}; give one of these"
            )
        wanted[partition] = offset
    return wanted
