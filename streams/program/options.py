"""The options of an app, checked."""

from dataclasses import dataclass
from typing import Literal

from tailrace.log.client import Log

Guarantee = Literal["exactly_once", "at_least_once"]
OnBadRecord = Literal["fail", "skip", "dead_letter"]
Hops = Literal["memory", "log"]
OnError = Literal["fail", "skip", "dead_letter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """What `App(...)` was given; see there."""

    name: str
    """With the version, where that is above 1."""
    log: str | Log
    log_named: bool
    """Whether the program named its log, or left it to the default."""
    guarantee: Guarantee
    commit_interval_ms: int
    commit_soon: bool
    """Whether commits come as soon as everything was read: the interval was left to us."""
    state_dir: str | None
    cache_bytes: int
    on_bad_record: OnBadRecord
    on_error: OnError
    reset: Literal["earliest", "latest"]
    hops: Hops = "memory"
    """How rows get through repartitions; the user has no say in it."""
    max_future_ms: int | None
    """How far ahead of the clock an event time may be."""
    version: int = 1
    max_skew_ms: int | None = None
    """How far ahead of others, in event time, a task may be; None leaves that to us."""
    threads: int
    """How many tasks run at the same time."""
