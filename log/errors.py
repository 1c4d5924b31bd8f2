"""The errors of tailrace, grouped by what the caller must do.

*Retriable*: not yet; wait and try again. *Fenced*: another took your place; stop. *Invalid*: the program or the
request is wrong; change it. *Corrupt*: bytes on disk are not what was written; stop and look. A message is one
sentence: what, where (topic-partition@offset, file), and what to do next; the parts stand as attributes beside it.

An argument that is wrong in itself (a type, a negative number) is a plain `TypeError` or `ValueError`, raised at the
call.
"""


class TailraceError(Exception):
    """Base of every error that tailrace raises on purpose."""


class RetriableError(TailraceError):
    """Not yet: nothing is wrong with the request; wait and try again."""


class FencedError(TailraceError):
    """Another has taken this one's place: stop."""


class ExpelledError(FencedError):
    """A consumer group goes on without this member: abort what it was doing, and poll to join anew."""


class OverdueError(FencedError):
    """Its transaction was aborted after its time-out, and nobody else has its id: do it again with another producer."""


class CorruptError(TailraceError):
    """Bytes on disk are not what was written.

    Attributes: `file`, `position` (byte in the file, -1 where unknown), `expected` and `found`, as text or numbers to
    print.
    """

    def __init__(
        self, message: str, *, file: str, position: int, expected: object = None, found: object = None
    ) -> None:
        """`message` is the whole sentence; the rest is the same as data."""
        super().__init__(message)
        self.file = file
        self.position = position
        self.expected = expected
        self.found = found


class InvalidError(TailraceError):
    """The program or the request cannot be carried out as it stands: change it."""


class TopologyError(InvalidError):
    """The program cannot be built; the message names the file and line of every place concerned."""


class TopicNotFoundError(InvalidError):
    """The topic does not exist in this log; near names are in the message."""


class TopicExistsError(InvalidError):
    """A topic of this name exists already."""


class LogLockedError(TailraceError):
    """Another process writes this log. `pid` is the holder's, 0 where it could not be read."""

    def __init__(self, message: str, *, pid: int = 0) -> None:
        """`message` is the whole sentence."""
        super().__init__(message)
        self.pid = pid


class DiskFullError(RetriableError):
    """There is no room on the disk: what was acknowledged stays, and the log goes on when there is room again."""


class EncodeError(InvalidError):
    """A value could not be made into bytes."""


class DecodeError(InvalidError):
    """Bytes could not be made into a value; the message has topic-partition@offset and the decoder's words."""


class TaskError(TailraceError):
    """A function of the user raised: the message names the node, its place and the record; the cause is chained."""
