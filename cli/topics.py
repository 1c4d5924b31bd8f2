"""`tailrace topics list|create|describe|alter|delete`."""

from typing import Annotated, Any

import typer

from tailrace.cli.errors import CommandError, UsageError
from tailrace.cli.names import TopicName
from tailrace.cli.session import InternalOption, Session, group, require_topic, shared
from tailrace.cli.transactions import transaction_line, transaction_row
from tailrace.log.client import Log
from tailrace.log.errors import InvalidError, TopicExistsError

topics = group("List, create, describe, alter and delete topics.")

NewTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.")]


@topics.command("list")
@shared
def list_topics(
    session: Session,
    internal: Annotated[bool, typer.Option("--internal", help="Also those that the log and apps keep.")] = False,
) -> None:
    """List the topics: partitions and how many offsets each one spans."""
    with session.open_log(read_only=True) as log:
        rows = [_overview(log, name) for name in log.topics(internal=internal)]
    if session.json:
        session.output.value(rows)
    elif rows:
        session.output.table(["topic", "partitions", "records"], [tuple(row.values()) for row in rows])
    else:
        session.output.note(f"there are no topics in {session.url}")


def _overview(log: Log, name: str) -> dict[str, Any]:
    ends, starts = log.offsets(name), log.offsets(name, "earliest")
    # Offsets, not records: compaction leaves gaps, and control records take an offset too.
    spanned = sum(end - starts[partition] for partition, end in ends.items())
    return {"name": name, "partitions": len(ends), "records": spanned}


@topics.command("create")
@shared
def create_topic(
    session: Session,
    name: NewTopic,
    partitions: Annotated[int | None, typer.Option(min=1, help="How many partitions.  [default: 1]")] = None,
    config: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kafka's topic configuration; may be repeated.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="An existing topic is no error, and stays as it is.")
    ] = False,
) -> None:
    """Create a topic; it is on disk when the command ends."""
    values = dict(_setting(text) for text in config or ())
    with session.open_log(create=True) as log:
        try:
            exists = exist_ok and name in log.topics(internal=True)
            count = partitions or (log.describe_topic(name).partitions if exists else 1)
            log.create_topic(name, partitions=count, config=values, exist_ok=exist_ok)
        except TopicExistsError:
            if name not in log.topics(internal=True):
                raise  # it is only too like another's
            raise CommandError(
                f"the topic {name!r} exists already; see it with: tailrace topics describe {name}"
            ) from None
        except (InvalidError, ValueError) as error:
            raise UsageError(str(error)) from error
        description = log.describe_topic(name)
    if session.json:
        session.output.value(description)
    else:
        session.output.line(f"{name}: {description.partitions} partitions in {session.url}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--config wants NAME=VALUE, not {text!r}, for example --config retention.ms=3600000")
    return name.strip(), value.strip()


@topics.command("describe")
@shared
def describe_topic(session: Session, name: TopicName) -> None:
    """Describe a topic: its id, configuration, and the offsets of each partition."""
    with session.open_log(read_only=True) as log:
        require_topic(log, name, internal=True)
        description = log.describe_topic(name)
        starts, ends = log.offsets(name, "earliest"), log.offsets(name, isolation="read_uncommitted")
        stable, transactions = log.offsets(name), log.open_transactions(name)
    partitions = [
        {
            "partition": partition.partition,
            "log_start_offset": starts[partition],
            "last_stable_offset": min(stable[partition], end),
            "log_end_offset": end,
        }
        for partition, end in sorted(ends.items())
    ]
    if session.json:
        session.output.value(
            {
                "name": description.name,
                "topic_id": description.topic_id,
                "internal": description.internal,
                "config": description.config,
                "partitions": partitions,
                "open_transactions": [transaction_row(each) for each in transactions],
            }
        )
        return
    session.output.line(f"{description.name}  id {description.topic_id}{'  internal' if description.internal else ''}")
    columns = ["partition", "log start", "last stable", "log end"]
    session.output.table(columns, [tuple(partition.values()) for partition in partitions])
    for each in transactions:
        session.output.line(transaction_line(each))
    session.output.table(["configuration", "value"], sorted(description.config.items()))


@topics.command("alter")
@shared
def alter_topic(
    session: Session,
    name: TopicName,
    config: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting to change; may be repeated.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A setting that gets its default again; may be repeated.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="How many: more than there are; the records of a key may then lie in two.")
    ] = None,
    internal: InternalOption = False,
) -> None:
    """Change a topic's settings, or give it more partitions; it is on disk when the command ends."""
    values: dict[str, str | None] = dict(_setting(text) for text in config or ())
    for each in unset or ():
        if each in values:
            raise UsageError(f"{each} is given to --config and to --unset: choose one of them")
    values |= dict.fromkeys(unset or ())
    if not values and partitions is None:
        raise UsageError("there is nothing to alter: give --config NAME=VALUE, --unset NAME or --partitions N")
    with session.open_log() as log:
        require_topic(log, name, internal=internal)
        held = log.describe_topic(name).partitions
        if partitions is not None and partitions <= held:  # asked first: half of what was wanted is worse than nothing
            raise UsageError(f"the topic {name!r} has {held} partitions, and can only get more: give more than that")
        try:
            if values:
                log.alter_topic(name, values)
            if partitions is not None:
                log.create_partitions(name, partitions)
        except (InvalidError, ValueError) as error:
            raise UsageError(str(error)) from error
        description = log.describe_topic(name)
    if session.json:
        session.output.value(description)
    else:
        session.output.line(f"{name}: {description.partitions} partitions in {session.url}")
        if values:
            session.output.table(
                ["configuration", "value"], [(each, description.config[each]) for each in sorted(values)]
            )


@topics.command("delete")
@shared
def delete_topic(session: Session, name: TopicName, internal: InternalOption = False) -> None:
    """Delete a topic, its data and the offsets committed for it."""
    with session.open_log() as log:
        require_topic(log, name, internal=internal, hint=False)
        log.delete_topic(name)
    if session.json:
        session.output.value({"deleted": name})
    else:
        session.output.line(f"{name} is deleted from {session.url}")
