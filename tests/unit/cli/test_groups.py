"""`tailrace groups`."""

import pytest

from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.tests.support.command import Command

EXECUTE = "--execute"


@pytest.fixture
def groups(tailrace: Command) -> Command:
    """The command, on `clicks` (2 partitions, 10 records each, a second apart) and `users` (5), read by two groups."""
    with Log.open(tailrace.log) as log:
        log.create_topic("clicks", partitions=2)
        log.create_topic("users")
        with log.producer() as producer:
            for number in range(20):
                producer.send("clicks", b"v", timestamp_ms=number // 2 * 1000, partition=number % 2)
            producer.send_many("users", [b"u"] * 5)
        log.alter_offsets("readers", {("clicks", 0): 4, ("clicks", 1): 10, ("users", 0): 5})
        log.alter_offsets("others", {("users", 0): 1})
    return tailrace


def committed(command: Command, group: str = "readers") -> dict[TopicPartition, int]:
    with Log.open(command.log, read_only=True) as log:
        return log.committed(group)


def test_list(groups: Command) -> None:
    assert groups.ok("groups", "list", "--json").json == [
        [
            {"group": "others", "state": "Empty", "partitions": 1, "lag": 4},
            {"group": "readers", "state": "Empty", "partitions": 3, "lag": 6},
        ]
    ]
    assert groups.ok("groups", "list").out.split() == [
        "group",
        "state",
        "partitions",
        "lag",
        "others",
        "Empty",
        "1",
        "4",
        "readers",
        "Empty",
        "3",
        "6",
    ]


def test_list_of_a_log_without_groups(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks")
    found = tailrace.ok("groups", "list")
    assert (found.out, "there are no groups" in found.err) == ("", True)
    assert tailrace.ok("groups", "list", "--json").json == [[]]


def test_describe(groups: Command) -> None:
    found = groups.ok("groups", "describe", "readers", "--json").json[0]
    assert (found["group"], found["state"], found["members"]) == ("readers", "Empty", [])
    assert found["offsets"][0] == {
        "topic": "clicks",
        "partition": 0,
        "committed_offset": 4,
        "log_end_offset": 10,
        "lag": 6,
    }
    lines = groups.ok("groups", "describe", "readers").out.splitlines()
    assert lines[0] == "readers  Empty"
    assert [line.split() for line in lines[2:]] == [
        ["clicks", "0", "4", "10", "6"],
        ["clicks", "1", "10", "10", "0"],
        ["users", "0", "5", "5", "0"],
    ]


@pytest.mark.parametrize("command", [["describe"], ["reset", "--to", "latest"], ["delete"]])
def test_an_unknown_group_is_not_found_with_near_names(groups: Command, command: list[str]) -> None:
    found = groups("groups", *command, "reader")
    assert (found.code, found.err) == (3, "error: there is no group 'reader' in this log; did you mean 'readers'?\n")


def test_reset_without_execute_shows_and_changes_nothing(groups: Command) -> None:
    before = committed(groups)
    found = groups.ok("groups", "reset", "readers", "--to", "earliest")
    assert [line.split() for line in found.out.splitlines()[1:]] == [
        ["clicks", "0", "4", "0"],
        ["clicks", "1", "10", "0"],
        ["users", "0", "5", "0"],
    ]
    assert "nothing was changed; to do it, add --execute" in found.err
    assert committed(groups) == before


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", [0, 0, 0]),
        ("latest", [10, 10, 5]),
        ("7", [7, 7, 5]),
        ("1970-01-01T00:00:03Z", [3, 3, 0]),
        ("1970-01-01 00:00:03", [3, 3, 0]),
        ("2999-01-01", [10, 10, 5]),
    ],
)
def test_reset_to(groups: Command, to: str, expected: list[int]) -> None:
    shown = groups.ok("groups", "reset", "readers", "--to", to, EXECUTE, "--json").json[0]
    assert [move["to"] for move in shown["offsets"]] == expected
    assert (shown["group"], shown["executed"], shown["offsets"][0]["from"]) == ("readers", True, 4)
    assert [offset for _, offset in sorted(committed(groups).items())] == expected


def test_reset_of_some_topics_and_partitions(groups: Command) -> None:
    groups.ok("groups", "reset", "readers", "--to", "0", "--topic", "clicks:1", EXECUTE)
    assert sorted(committed(groups).values()) == [0, 4, 5]
    groups.ok("groups", "reset", "readers", "--to", "2", "--topic", "clicks:0,1", "--topic", "users", EXECUTE)
    assert set(committed(groups).values()) == {2}


def test_reset_begins_a_group_where_topics_are_named(groups: Command) -> None:
    shown = groups.ok("groups", "reset", "fresh", "--to", "3", "--topic", "users")
    assert [line.split() for line in shown.out.splitlines()[1:]] == [["users", "0", "-", "3"]]
    assert "there is no group 'fresh' yet" in shown.err
    assert committed(groups, "fresh") == {}
    groups.ok("groups", "reset", "fresh", "--to", "3", "--topic", "users", EXECUTE)
    assert committed(groups, "fresh") == {("users", 0): 3}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--to"),
        (["--to", "yesterday"], 2, "--to wants earliest"),
        (["--to", "-5"], 2, "--to wants earliest"),
        (["--to", "0", "--topic", "click"], 3, "'clicks'"),
        (["--to", "0", "--topic", "clicks:2"], 3, "has 2 partitions"),
        (["--to", "0", "--topic", "clicks:x"], 2, "clicks:0,3"),
        (["--to", "0", "--topic", "clicks:"], 2, "clicks:0,3"),
    ],
)
def test_reset_refused(groups: Command, arguments: list[str], code: int, said: str) -> None:
    before = committed(groups)
    found = groups("groups", "reset", "readers", *arguments, EXECUTE)
    assert (found.code, found.err.count("\n"), said in found.err) == (code, 1, True), found
    assert committed(groups) == before


@pytest.mark.parametrize("more", [[], ["--topic", "users"], ["--topic", "users", EXECUTE]])
def test_reset_of_a_group_without_a_name_is_usage(groups: Command, more: list[str]) -> None:
    found = groups("groups", "reset", "", "--to", "0", *more)
    assert (found.code, found.err.startswith("error: a group's name cannot be empty")) == (2, True)


def test_delete(groups: Command) -> None:
    assert "group readers is deleted" in groups.ok("groups", "delete", "readers").out
    assert groups.ok("groups", "delete", "others", "--json").json == [{"deleted": "others"}]
    assert groups.ok("groups", "list", "--json").json == [[]]


def test_beside_a_writer_groups_are_read_and_not_changed(groups: Command) -> None:
    with Log.open(groups.log) as log, log.consumer(group="readers") as consumer:
        consumer.subscribe(["clicks"])
        consumer.poll()
        assert log.describe_group("readers").state == "Stable"
        described = groups.ok("groups", "describe", "readers", "--json").json[0]
        assert (described["state"], described["offsets"][0]["committed_offset"]) == ("Unknown", 4)
        groups.ok("groups", "reset", "readers", "--to", "earliest")
        for command in (["reset", "readers", "--to", "earliest", EXECUTE], ["delete", "readers"]):
            found = groups("groups", *command)
            assert (found.code, found.err.count("\n")) == (5, 1)
    assert groups.ok("groups", "describe", "readers", "--json").json[0]["state"] == "Empty"


def test_the_group_of_an_app_with_state_is_left_alone_unless_asked_for(groups: Command) -> None:
    with Log.open(groups.log) as log:
        log.alter_offsets("readers-eu", {("users", 0): 1})
        log.create_topic("readers-eu-counts-changelog", internal=True)
    for command in (
        ["reset", "readers-eu", "--to", "0"],
        ["reset", "readers-eu", "--to", "0", EXECUTE],
        ["delete", "readers-eu"],
    ):
        found = groups("groups", *command)
        assert (found.code, "readers-eu-counts-changelog" in found.err) == (2, True)
    assert committed(groups, "readers-eu") == {("users", 0): 1}
    groups.ok("groups", "reset", "readers", "--to", "0", EXECUTE)  # whose name only begins like the app's
    groups.ok("groups", "reset", "readers-eu", "--to", "0", EXECUTE, "--internal")
    groups.ok("groups", "delete", "readers-eu", "--internal")
