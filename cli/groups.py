"""`tailrace groups list|describe|reset|delete`: how far consumer groups and apps have read.

1. `reset` shows what would move, and moves nothing until `--execute` is given: once an offset is overwritten, nobody
   can tell how far the group had read.
2. A group with members is left alone. They live in the process that writes the log, so its lock keeps us out (code 5).
3. The group of an app that keeps state is changed only with `--internal`: its stores hold what it has read, and records
   that it reads again would count again.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tailrace.cli.errors import NotFoundError, UsageError
from tailrace.cli.names import GroupName, complete_topics
from tailrace.cli.output import Output
from tailrace.cli.positions import METAVAR, positions
from tailrace.cli.session import Session, group, require_topic, shared
from tailrace.cli.transactions import transaction_line, transaction_row
from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.log.topic import near_names

groups = group("List, describe, reset and delete consumer groups; an app's group has the app's name.")

Internal = Annotated[bool, typer.Option("--internal", help="Even the group of an app that keeps state in this log.")]


@groups.command("list")
@shared
def list_groups(session: Session) -> None:
    """List the groups: state, partitions with a committed offset, and how many offsets they are behind."""
    with session.open_log(read_only=True) as log:
        rows = [_overview(log, name) for name in log.groups()]
    if session.json:
        session.output.value(rows)
    elif rows:
        session.output.table(["group", "state", "partitions", "lag"], [tuple(row.values()) for row in rows])
    else:
        session.output.note(f"there are no groups in {session.url}")


def _overview(log: Log, name: str) -> dict[str, Any]:
    found = log.describe_group(name)
    return {
        "group": name,
        "state": found.state,
        "partitions": len(found.offsets),
        "lag": sum(found.lag.values()),
    }


@groups.command("describe")
@shared
def describe_group(session: Session, name: GroupName) -> None:
    """Describe a group: its state, and per partition its committed offset, the end, and the offsets between them.

    While another process writes the log the state is Unknown: the members live in that process.
    """
    with session.open_log(read_only=True) as log:
        _require(log, name)
        found = log.describe_group(name)
        topics = {each.topic for each in found.lag}
        transactions = [
            each for topic in sorted(topics) for each in log.open_transactions(topic) if each.partition in found.offsets
        ]
    rows = [
        {
            "topic": each.topic,
            "partition": each.partition,
            "committed_offset": offset,
            "log_end_offset": offset + found.lag[each] if each in found.lag else None,
            "lag": found.lag.get(each),
        }
        for each, offset in sorted(found.offsets.items())
    ]
    if session.json:
        session.output.value(
            {
                "group": name,
                "state": found.state,
                "members": found.members,
                "offsets": rows,
                "open_transactions": [transaction_row(each) for each in transactions],
            }
        )
        return
    session.output.line(f"{name}  {found.state}")
    session.output.table(
        ["topic", "partition", "committed", "log end", "lag"],
        [tuple("-" if cell is None else cell for cell in row.values()) for row in rows],
    )
    for each in transactions:
        session.output.line(transaction_line(each))


@groups.command("reset")
@shared
def reset_group(
    session: Session,
    name: GroupName,
    to: Annotated[
        str, typer.Option("--to", metavar=METAVAR, help="Where the group shall go on: a time as 2026-11-21T12:00:00Z.")
    ],
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC[:P,…]",
            autocompletion=complete_topics,
            help="Only these; may be repeated. Else all that it has committed.",
        ),
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without, only show what would move.")] = False,
    internal: Internal = False,
) -> None:
    """Set the offsets that a group goes on from. Shows what would move, and does it only with --execute.

    An offset outside of what a partition holds means its nearest end.
    """
    if not name:
        raise UsageError("a group's name cannot be empty: tailrace groups list shows them")
    with session.open_log(read_only=not execute) as log:
        _refuse_app(log, name, internal=internal)
        chosen = _chosen(log, name, topic or ())
        wanted = {each: offset for each, offset in _wanted(log, to, chosen).items() if each in chosen}
        before = log.committed(name)
        if execute:
            log.alter_offsets(name, wanted)
    _show_moves(session.output, name, before, wanted, executed=execute)


def _wanted(log: Log, to: str, chosen: set[TopicPartition]) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for topic in sorted({each.topic for each in chosen}):
        found.update(positions(log, topic, to, "--to"))
    return found


def _chosen(log: Log, name: str, topics: list[str] | tuple[()]) -> set[TopicPartition]:
    """The partitions that are meant; a group that is not there yet can be given offsets for topics that are named."""
    if not topics:
        _require(log, name)
        return set(log.committed(name))
    return {each for text in topics for each in _partitions(log, text)}


def _partitions(log: Log, text: str) -> list[TopicPartition]:
    topic, colon, listed = text.partition(":")
    require_topic(log, topic, internal=True)
    held = log.offsets(topic)
    if not colon:
        return list(held)
    numbers = listed.split(",")
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise UsageError(f"--topic wants TOPIC or TOPIC:PARTITION,…, not {text!r}, for example --topic clicks:0,3")
    wanted = [TopicPartition(topic, int(number)) for number in numbers]
    for each in wanted:
        if each not in held:
            raise NotFoundError(f"the topic {topic!r} has {len(held)} partitions, and no partition {each.partition}")
    return wanted


def _show_moves(
    output: Output,
    name: str,
    before: Mapping[TopicPartition, int],
    wanted: Mapping[TopicPartition, int],
    *,
    executed: bool,
) -> None:
    moves = [
        {"topic": each.topic, "partition": each.partition, "from": before.get(each), "to": offset}
        for each, offset in sorted(wanted.items())
    ]
    if output.json:
        output.value({"group": name, "executed": executed, "offsets": moves})
        return
    output.table(
        ["topic", "partition", "from", "to"],
        [tuple("-" if cell is None else cell for cell in move.values()) for move in moves],
    )
    if not executed:
        output.note(
            f"nothing was changed; to do it, add --execute{'' if before else f' (there is no group {name!r} yet)'}"
        )


@groups.command("delete")
@shared
def delete_group(session: Session, name: GroupName, internal: Internal = False) -> None:
    """Delete a group's committed offsets, at once."""
    with session.open_log() as log:
        _require(log, name)
        _refuse_app(log, name, internal=internal)
        log.delete_group(name)
    if session.json:
        session.output.value({"deleted": name})
    else:
        session.output.line(f"group {name} is deleted from {session.url}")


def _require(log: Log, name: str) -> None:
    known = log.groups()
    if name not in known:
        raise NotFoundError(
            f"there is no group {name!r} in this log{near_names(name, known) or '; tailrace groups list shows them'}"
        )


def _refuse_app(log: Log, name: str, *, internal: bool) -> None:
    kept = [] if internal else [each for each in log.topics(internal=True) if _keeps_state(log, name, each)]
    if kept:
        raise UsageError(
            f"{name!r} is the group of an app with state (in {kept[0]}): reading again what its stores hold counts it "
            "twice; `tailrace reset MODULE:APP` takes the app back with its state, --internal changes the "
            "group all the same"
        )


def _keeps_state(log: Log, name: str, topic: str) -> bool:
    """Whether a topic is a changelog of the app of this name, and not of one whose name only begins with it."""
    changelog = topic.startswith(f"{name}-") and topic.endswith("-changelog")
    longer = any(other.startswith(f"{name}-") and topic.startswith(f"{other}-") for other in log.groups())
    return changelog and not longer and log.describe_topic(topic).internal
