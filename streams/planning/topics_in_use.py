"""The topics that an app reads and keeps its state in: told by their ids from others of the same names.

1. A topic that is deleted and made anew under a running app has other records at the same offsets. An app that read on
   would leave out as many of them as it had read of the old one; so nothing is committed any more.
2. A topic's committed offsets are deleted with it. So a start cannot tell from the log whether a topic is new to the
   program or was made anew since: the ids are kept in the state directory (`topics.properties`: name=id), from the
   first commit of a start on. Without the file (a run of before there was one) nothing is known, and nothing refused.
3. A topic that a function chooses is one of them from the first record on that goes to it.
4. Partitions that an input gets under a running app belong to no task of it: the run ends with a word, at a commit or
   while it waits, as nobody would read them. A run to the end, which is where its inputs ended when it began, goes on
   to there, and leaves them to the next start; but not where the app writes to that topic itself.

Not here: what a start makes of a topic that is another one than before (lost).
"""

import logging
from collections.abc import Callable, Collection, Mapping
from copy import copy
from threading import Lock
from typing import Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

from tailrace.log.checkpoint import read_properties, write_properties
from tailrace.log.client import Log
from tailrace.log.disk import Disk, join, parent
from tailrace.log.errors import InvalidError, RetriableError, TopicNotFoundError
from tailrace.log.record import TopicPartition

FILE: Final = "topics.properties"
# A table is read whole at each start.
_KEPT: Final = ("input", "changelog", "rows", "output")
# Where a new partition would be left unread.
_READ: Final = ("input", "table")
# What to do where an app cannot go on from what it has.
BEGIN_ANEW: Final = "begin anew, with `tailrace reset` (app.reset), or under another name"

_logger = logging.getLogger(__name__)
_lock = Lock()
_in_memory: WeakKeyDictionary[Log, dict[tuple[str, int], "KnownTopics"]] = WeakKeyDictionary()


def _none(_name: str) -> bool:
    return False


class Use(NamedTuple):
    """What an app does with a topic."""

    kind: Literal["input", "table", "changelog", "rows", "output"]
    told: str
    """In words, with the user's place: "it is read at file:line"."""


class TopicsInUse:
    """What `describe_topic` said of each when the app began."""

    def __init__(self, log: Log, app: str, used_for: Mapping[str, Use]) -> None:
        """`used_for` is by topic."""
        self._log = log
        self._app = app
        self.used_for = dict(used_for)
        found = {name: log.describe_topic(name) for name in used_for}
        self.ids = {name: each.topic_id for name, each in found.items()}
        self._grown_told: set[str] = set()
        self._partitions = {name: found[name].partitions for name, use in used_for.items() if use.kind in _READ}

    def add(self, name: str, use: Use) -> None:
        """One more: a topic that a function chose while the app runs."""
        found = self._log.describe_topic(name)
        self.used_for[name] = use
        self.ids[name] = found.topic_id

    def without(self, names: Collection[str]) -> "TopicsInUse":
        """The same but for these, which may be anything."""
        rest = copy(self)
        rest.used_for = {name: use for name, use in self.used_for.items() if name not in names}
        rest.ids = {name: each for name, each in self.ids.items() if name not in names}
        return rest

    def knows(self, partition: TopicPartition) -> bool:
        """Whether a partition was there when the app began; of topics that nobody reads here it does not matter."""
        return partition.partition < self._partitions.get(partition.topic, partition.partition + 1)

    def check(self, *, after_error: bool = False, may_grow: Callable[[str], bool] = _none) -> None:
        """Makes sure that they are what they were. Inputs that may grow are told of in a warning, once.

        Raises:
            InvalidError: one was deleted, and perhaps made anew, or an input has more partitions; the log was closed,
                which is looked at after an error.
            RetriableError: its name stands for another one now: from the last commit on, that is to be read.
        """
        if after_error:
            self._check_open()
        for name, topic_id in self.ids.items():
            try:
                now = self._log.describe_topic(name)
            except TopicNotFoundError:
                raise InvalidError(self._told(name, "was deleted")) from None
            if now.topic_id != topic_id and self.is_there(topic_id):
                raise RetriableError(
                    f"topic {name!r} is another one now, to which its readers were moved while app {self._app!r} ran "
                    f"({self.used_for[name].told})"
                )
            if now.topic_id != topic_id:
                raise InvalidError(self._told(name, "was deleted and made anew"))
            before = self._partitions.get(name, now.partitions)
            if now.partitions != before:
                self._grown(name, now.partitions, may_grow=may_grow(name))

    def _grown(self, name: str, now: int, *, may_grow: bool) -> None:
        if not may_grow:
            what = f"got partitions, {now} after {self._partitions[name]},"
            raise InvalidError(self._told(name, what, grown=True))
        if name not in self._grown_told:
            self._grown_told.add(name)
            _logger.warning(
                "topic %r got partitions, %d after %d, while app %r ran to the end of its inputs (%s): that is where "
                "they ended when it began, and the new ones are left to the next start, which reads them where there "
                "are no stores, and says how to go on where there are",
                name,
                now,
                self._partitions[name],
                self._app,
                self.used_for[name].told,
            )

    def _check_open(self) -> None:
        """Raises InvalidError where the log was closed."""
        try:
            self._log.consumer().close()
        except InvalidError as error:
            raise InvalidError(
                f"the log was closed while app {self._app!r} ran, so its next run goes on from its last commit: end "
                f"the app first, with app.stop() or at the end of `async with app.running()`, then "
                f"close the log ({error})"
            ) from error

    def is_there(self, topic_id: str) -> bool:
        """Whether a topic of this id is in the log, whatever its name."""
        names = self._log.topics(internal=True)
        return any(self._log.describe_topic(name).topic_id == topic_id for name in names)

    def _told(self, name: str, what: str, *, grown: bool = False) -> str:
        use = self.used_for[name]
        match use.kind:
            case "input" | "table" if grown:
                what_to_do = (
                    "start the app again: without stores it reads all of them, with stores the start says how to go on"
                )
            case "input" | "table":
                what_to_do = "start the app again to go on with a topic of that name as it is then"
            case "output":
                what_to_do = (
                    "start the app again: it goes on from there, in a topic of that name that it makes if there is "
                    "none; what it had written to the one that is gone is not made again"
                )
            case _:
                what_to_do = BEGIN_ANEW
        return (
            f"topic {name!r} {what} while app {self._app!r} ran ({use.told}), so nothing after the last commit was "
            f"kept; {what_to_do}"
        )


class KnownTopics:
    """The ids that were in use when the app last began here; in memory where it has no directory."""

    def __init__(self, disk: Disk | None = None, directory: str = "") -> None:
        """Reads the file, if there is one."""
        self._disk = disk
        self._path = join(directory, FILE) if disk is not None else ""
        self._ids = (None if disk is None else read_properties(disk, self._path)) or {}

    def others(self, now: TopicsInUse, names: Collection[str] | None = None) -> dict[str, Use]:
        """The topics, of all or of these, that are other ones than then, by name."""
        return {
            name: now.used_for[name]
            for name in (now.ids if names is None else names)
            if (before := self._ids.get(name, topic_id := now.ids[name])) != topic_id
            # An output's name may have come to stand for another one, which was promoted.
            and not (now.used_for[name].kind == "output" and now.is_there(before))
        }

    def keep(self, now: TopicsInUse) -> None:
        """Remembers these.

        Raises:
            DiskFullError: no room; what was known is as before.
        """
        ids = self._ids | {name: each for name, each in now.ids.items() if now.used_for[name].kind in _KEPT}
        if ids != self._ids and self._disk is not None:
            write_properties(self._disk, self._path, ids)
        self._ids = ids

    def forget(self) -> None:
        """Knows nothing any more, as of an app that never ran; on disk when the call returns."""
        self._ids = {}
        if self._disk is not None and self._disk.exists(self._path):
            self._disk.remove(self._path)
            self._disk.sync_dir(parent(self._path))


def known_in_memory(log: Log, app: str, number: int) -> KnownTopics:
    """Of an app on a log in memory: what others have in their state directories; `number` tells members apart."""
    with _lock:
        return _in_memory.setdefault(log, {}).setdefault((app, number), KnownTopics())


def forget_in_memory(log: Log, app: str) -> None:
    """Takes all of its members for ones that never ran."""
    with _lock:
        for key in [each for each in _in_memory.get(log, {}) if each[0] == app]:
            del _in_memory[log][key]
