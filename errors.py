"""Every error that tailrace raises on purpose, by what the caller must do (declared in `log/errors.py`)."""

from tailrace.log.errors import (
    CorruptError,
    DecodeError,
    DiskFullError,
    EncodeError,
    ExpelledError,
    FencedError,
    InvalidError,
    LogLockedError,
    OverdueError,
    RetriableError,
    TailraceError,
    TaskError,
    TopicExistsError,
    TopicNotFoundError,
    TopologyError,
)

__all__ = [
    "CorruptError",
    "DecodeError",
    "DiskFullError",
    "EncodeError",
    "ExpelledError",
    "FencedError",
    "InvalidError",
    "LogLockedError",
    "OverdueError",
    "RetriableError",
    "TailraceError",
    "TaskError",
    "TopicExistsError",
    "TopicNotFoundError",
    "TopologyError",
]
