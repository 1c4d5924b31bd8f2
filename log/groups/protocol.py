"""Requests and answers of Kafka's classic group protocol, as values: what members ask, what they are told.

1. Names and codes are Kafka's (`Errors`, JoinGroup, SyncGroup), so that a server only moves fields.
2. A ticket is whatever the asker wants back beside its answer. Joins and syncs may be answered by a later call.

Times are milliseconds. Not here: what happens to them (`group`), the bytes inside the metadata (`consumer_protocol`).
"""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

Ticket = Any


class Failure(enum.IntEnum):
    """Why a request was refused: Kafka's names and codes."""

    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    UNKNOWN_MEMBER_ID = 25
    REBALANCE_IN_PROGRESS = 27
    MEMBER_ID_REQUIRED = 79
    FENCED_INSTANCE_ID = 82


class JoinRequest(NamedTuple):
    """JoinGroup. `member` is empty the first time; `protocols` are (name, metadata), the dearest first."""

    member: str
    protocols: tuple[tuple[str, bytes], ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    instance: str | None = None
    client_id: str = ""
    client_host: str = ""
    protocol_type: str = "consumer"


class MemberMetadata(NamedTuple):
    """What the leader is told of each member."""

    member: str
    instance: str | None
    metadata: bytes


class Joined(NamedTuple):
    """The answer to a join. Only the leader is given `members`."""

    member: str
    failure: Failure | None = None
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    members: tuple[MemberMetadata, ...] = ()
    skip_assignment: bool = False  # a static leader that came back: the assignment stands


class SyncRequest(NamedTuple):
    """SyncGroup. Only the leader's `assignments` count; None for a protocol is not checked, as in old versions."""

    member: str
    generation: int
    assignments: Mapping[str, bytes] = {}
    instance: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None


class Synced(NamedTuple):
    """The answer to a sync."""

    member: str
    failure: Failure | None = None
    protocol: str = ""
    assignment: bytes = b""


class Answer(NamedTuple):
    """An answer and whose it is."""

    ticket: Ticket
    body: Joined | Synced
