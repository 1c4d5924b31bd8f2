"""Who a running app is: a member id, kept in the app's state directory under a lock.

1. One running app uses a state directory at a time; the system lets the lock go when its process ends, however it does.
2. The member id stays as long as the directory does. So the transactional id is the same after a crash, and the next
   run fences the one before it at once, instead of waiting for a time-out.
3. Of several running apps of one name on a log, the first uses the app's directory, the next `member-1` in it, and so
   on: who comes takes the lowest number that is free, so a restart finds the states where they were.
4. A directory of another app, of another log, of a newer version, or of somebody else's is refused, and nothing in it
   is changed.

The file is `member.properties`: `version`, `app`, `member.id`, `cluster.id` (the log's, of its `meta.properties`).
Stores in one without it are from before it was written: it is taken over. Not here: the stores (tailrace.state).
"""

import re
from dataclasses import dataclass, field
from typing import Final

from tailrace.log.checkpoint import TEMPORARY, read_properties, write_properties
from tailrace.log.disk import Disk, Lock, join, parent
from tailrace.log.errors import CorruptError, InvalidError, LogLockedError
from tailrace.log.topics.metadata import new_topic_id
from tailrace.streams.planning.topics_in_use import FILE as TOPICS
from tailrace.streams.planning.topics_in_use import KnownTopics

FILE: Final = "member.properties"
LOCK: Final = ".lock"
MEMBER: Final = "member-"
TASK: Final = re.compile(r"\d+_\d+")
GOING: Final = ".going"
"""What the name of a task's directory ends with while it is removed."""
VERSION: Final = 1
_FIELDS: Final = ("version", "app", "member.id", "cluster.id")
# What may lie in a directory that has no file of ours yet: a run that was killed before, stores, file systems' own.
_OURS: Final = re.compile(
    r"\d+_\d+(\.going)?|member-\d+|\.lock|\.DS_Store|lost\+found|"
    + "|".join(re.escape(each) for each in (FILE + TEMPORARY, TOPICS, TOPICS + TEMPORARY))
)


@dataclass(slots=True)
class Identity:
    """The identity of a running app. `release` lets the next one have its directory."""

    app: str
    member_id: str
    _lock: Lock | None = None
    topics: KnownTopics = field(default_factory=KnownTopics)
    """What the run before had in use."""

    @property
    def transactional_id(self) -> str:
        """What the producer of its commits is known by."""
        return f"{self.app}-{self.member_id}"

    def release(self) -> None:
        """Unlocks the directory; again does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def in_memory(app: str, number: int = 0) -> Identity:
    """The identity of an app whose state is gone with it: the same each time, to end what the run before left open."""
    return Identity(app, f"memory-{number}" if number else "memory")


def directory(state: str, app: str, number: int = 0) -> str:
    """Where the running app with this number keeps its state; the first has the app's own directory."""
    return join(state, app, f"{MEMBER}{number}") if number else join(state, app)


def of_other_logs(disk: Disk, state: str, cluster_id: str) -> dict[str, str]:
    """The apps' directories in `state` that say that they are of another log than this one, and of which."""
    found: dict[str, str] = {}
    for name in disk.list(state) if disk.is_dir(state) else ():
        path = join(state, name)
        said = (read_properties(disk, join(path, FILE)) or {}).get("cluster.id", "") if disk.is_dir(path) else ""
        if said not in {"", cluster_id}:
            found[path] = said
    return found


def take(disk: Disk, path: str, app: str, cluster_id: str | None) -> Identity:
    """The identity in the state directory `path`, which is made if it is missing.

    cluster_id None: the log is another one each time, and is not compared.

    Raises:
        InvalidError: the directory belongs to another app or log, or to a newer version, or is none of ours.
        LogLockedError: another running app uses it.
        CorruptError: its file cannot be read.
        DiskFullError: no room for it.
    """
    try:
        return _take(disk, path, app, cluster_id)
    except OSError as error:  # it, or what is above it, is a file, or is not ours to write
        raise InvalidError(
            f"state directory {path} of app {app!r} cannot be used ({error.strerror or error}): give another state_dir"
        ) from error


def _take(disk: Disk, path: str, app: str, cluster_id: str | None) -> Identity:
    known = _read(disk, path, app, cluster_id)
    disk.mkdir(path)
    try:
        lock = disk.lock(join(path, LOCK))
    except LogLockedError as error:
        raise _shared(path, app, error.pid) from None
    try:
        # Another process may have made one here between the look and the lock.
        known = known or _read(disk, path, app, cluster_id)
        if known is None:
            known = new_topic_id()
            properties = zip(_FIELDS, (str(VERSION), app, known, cluster_id or ""), strict=True)
            write_properties(disk, join(path, FILE), dict(properties))
            disk.sync_dir(parent(path))
    except BaseException:
        lock.release()
        raise
    # Of a log in memory, which is another one each time, no topic is known.
    return Identity(app, known, lock, KnownTopics(disk, path) if cluster_id is not None else KnownTopics())


def _read(disk: Disk, path: str, app: str, cluster_id: str | None) -> str | None:
    """The member id that is kept here; None where there is none yet."""
    file = join(path, FILE)
    if disk.exists(path) and not disk.is_dir(path):
        raise InvalidError(f"{path} is a file, and the state of app {app!r} is a directory: give another state_dir")
    properties = read_properties(disk, file)
    if properties is None:
        strange = [name for name in (disk.list(path) if disk.is_dir(path) else ()) if not _OURS.fullmatch(name)]
        if strange:
            raise InvalidError(
                f"{path} holds {strange[0]!r}, so it is no state directory of an app, and the state of app {app!r} "
                "would be mixed with it: give another state_dir; nothing was written"
            )
        return None
    _check_version(file, properties)
    if properties["app"] != app:
        raise InvalidError(
            f"state directory {path} belongs to app {properties['app']!r}, not to {app!r} ({file}): give {app!r} a "
            "state_dir of its own, or move the directory back to where it was"
        )
    if cluster_id is not None and properties["cluster.id"] not in {"", cluster_id}:
        raise InvalidError(
            f"state directory {path} belongs to app {app!r} on the log {properties['cluster.id']}, and this is the log "
            f"{cluster_id} ({file}): give each log's app a state_dir of its own; or, if that log is gone, delete the "
            "directory: state is rebuilt from the changelogs"
        )
    return properties["member.id"]


def _check_version(file: str, properties: dict[str, str]) -> None:
    version = properties.get("version", "")
    if version.isdigit() and int(version) > VERSION:
        raise InvalidError(
            f"{file} has version {version}, and this tailrace knows {VERSION}: run the app with the newer release that "
            "wrote it, or delete the directory: state is rebuilt from the changelogs"
        )
    missing = [name for name in _FIELDS if name not in properties]
    if missing or not version.isdigit() or not properties["member.id"]:
        raise CorruptError(
            f"{file} cannot be read: expected lines {', '.join(_FIELDS)}, found {', '.join(properties) or 'nothing'}; "
            "delete the directory: state is rebuilt from the changelogs",
            file=file,
            position=-1,
            expected=", ".join(_FIELDS),
            found=", ".join(properties) or "nothing",
        )


def _shared(path: str, app: str, pid: int) -> LogLockedError:
    return LogLockedError(
        f"state directory {path} of app {app!r} is in use by process {pid or 'unknown'}: stop that one, or give this "
        "one a state_dir of its own",
        pid=pid,
    )
