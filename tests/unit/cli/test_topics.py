"""`tailrace topics`."""

from tailrace.log.client import Log
from tailrace.tests.support.command import Command


def test_create_describe_list_delete(tailrace: Command) -> None:
    assert "clicks: 4 partitions" in tailrace.ok("topics", "create", "clicks", "--partitions", "4").out
    tailrace.ok("topics", "create", "users", "--config", "cleanup.policy=compact", "--config", "retention.ms=5")
    listed = tailrace.ok("topics", "list", "--json").json
    assert listed == [
        [{"name": "clicks", "partitions": 4, "records": 0}, {"name": "users", "partitions": 1, "records": 0}]
    ]
    users = tailrace.ok("topics", "describe", "users", "--json").json[0]
    assert users["config"]["cleanup.policy"] == "compact"
    assert users["config"]["retention.ms"] == "5"
    assert users["partitions"] == [{"partition": 0, "log_start_offset": 0, "log_end_offset": 0}]
    tailrace.ok("topics", "delete", "users")
    assert "users" not in tailrace.ok("topics", "list").out


def test_tables_show_what_json_says(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks", "--partitions", "2")
    assert tailrace.ok("topics", "list").out.split() == ["topic", "partitions", "records", "clicks", "2", "0"]
    described = tailrace.ok("topics", "describe", "clicks").out
    assert described.startswith("clicks  id ")
    assert "retention.ms" in described


def test_an_existing_topic_is_an_error_unless_said(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks", "--partitions", "4")
    assert tailrace("topics", "create", "clicks").code == 1
    assert tailrace.ok("topics", "create", "clicks", "--exist-ok", "--json").json[0]["partitions"] == 4


def test_bad_configuration_is_usage_with_near_names(tailrace: Command) -> None:
    found = tailrace("topics", "create", "t", "--config", "retention.m=5")
    assert (found.code, "retention.ms" in found.err) == (2, True)
    assert tailrace("topics", "create", "t", "--config", "retention.ms").code == 2
    assert tailrace("topics", "create", "t", "--config", "retention.ms=long").code == 2
    assert tailrace("topics", "create", "no/slash").code == 2


def test_alter_settings_and_partitions(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks", "--config", "segment.ms=7")
    altered = tailrace.ok("topics", "alter", "clicks", "--config", "retention.ms=5", "--unset", "segment.ms").out
    assert altered.split()[-4:] == ["retention.ms", "5", "segment.ms", "604800000"]
    assert tailrace.ok("topics", "alter", "clicks", "--partitions", "3", "--json").json[0]["partitions"] == 3
    assert tailrace.ok("topics", "describe", "clicks", "--json").json[0]["config"]["retention.ms"] == "5"
    for wrong in (["--partitions", "2"], [], ["--config", "retention.m=5"], ["--unset", "retention.m"]):
        found = tailrace("topics", "alter", "clicks", *wrong)
        assert (found.code, len(found.err.splitlines())) == (2, 1), wrong
    assert tailrace("topics", "alter", "click", "--partitions", "4").code == 3


def test_a_missing_topic_is_not_found_with_near_names(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks")
    for command in ("describe", "delete"):
        found = tailrace("topics", command, "click")
        assert found.code == 3
        assert "'clicks'" in found.err


def test_a_log_in_use_is_locked_and_still_readable(tailrace: Command) -> None:
    with Log.open(tailrace.log) as log:
        log.create_topic("clicks")
        found = tailrace("topics", "create", "other")
        assert found.code == 5
        assert found.err.startswith("error: ")
        assert tailrace.ok("topics", "list", "--json").json[0][0]["name"] == "clicks"
