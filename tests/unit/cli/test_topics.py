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
    assert users["partitions"] == [
        {"partition": 0, "log_start_offset": 0, "last_stable_offset": 0, "log_end_offset": 0}
    ]
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
    found = tailrace("topics", "create", "clicks")
    assert (found.code, found.err) == (
        1,
        "error: the topic 'clicks' exists already; see it with: tailrace topics describe clicks\n",
    )
    assert "too like 'a_b'" in (tailrace.ok("topics", "create", "a_b"), tailrace("topics", "create", "a.b"))[1].err
    assert tailrace.ok("topics", "create", "clicks", "--exist-ok", "--json").json[0]["partitions"] == 4
    found = tailrace("topics", "create", "clicks", "--exist-ok", "--partitions", "2")
    assert (found.code, "exists with partitions=4 and not 2" in found.err) == (2, True)


def test_bad_configuration_is_usage_with_near_names(tailrace: Command) -> None:
    found = tailrace("topics", "create", "t", "--config", "retention.m=5")
    assert (found.code, "retention.ms" in found.err) == (2, True)
    assert tailrace("topics", "create", "t", "--config", "retention.ms").code == 2
    found = tailrace("topics", "create", "t", "--config", "retention.ms=long")
    told = "configuration retention.ms='long' cannot be used: it is not a whole number; give another value\n"
    assert (found.code, found.err.endswith(told)) == (2, True)
    found = tailrace("topics", "create", "t", "--config", "min.cleanable.dirty.ratio=half")
    assert (found.code, "it is not a number; give" in found.err) == (2, True)
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
    found = tailrace("topics", "alter", "clicks", "--config", "retention.ms=6", "--unset", "retention.ms")
    assert (found.code, found.err.startswith("error: retention.ms is given to --config and to --unset")) == (2, True)
    assert tailrace("topics", "alter", "click", "--partitions", "4").code == 3
    assert tailrace("topics", "alter", "clicks", "--config", "retention.ms=6", "--partitions", "2").code == 2
    assert tailrace.ok("topics", "describe", "clicks", "--json").json[0]["config"]["retention.ms"] == "5"


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


def test_a_missing_topic_is_told_in_the_commands_words(tailrace: Command) -> None:
    tailrace.ok("topics", "create", "clicks")
    for command in (["topics", "describe"], ["tail"], ["send"]):
        assert tailrace(*command, "nope", stdin=b"").err == (
            "error: there is no topic 'nope'; to create it: tailrace topics create nope\n"
        )
    assert tailrace("topics", "delete", "nope").err == "error: there is no topic 'nope'\n"


def test_internal_topics_are_left_alone_unless_asked_for(tailrace: Command) -> None:
    with Log.open(tailrace.log) as log:
        log.create_topic("shop-counts-changelog", internal=True)
    for command in (["send"], ["topics", "delete"], ["topics", "alter", "--partitions", "4"]):
        found = tailrace(*command, "shop-counts-changelog", stdin=b"{}\n")
        assert found.code == 2
        assert "'shop-counts-changelog' is internal" in found.err
        assert "--internal" in found.err
    assert tailrace.rows("shop-counts-changelog") == []
    tailrace.ok("send", "shop-counts-changelog", "--internal", stdin=b"{}\n")
    assert len(tailrace.rows("shop-counts-changelog")) == 1
    tailrace.ok("topics", "delete", "shop-counts-changelog", "--internal")
    assert tailrace.ok("topics", "list", "--internal", "--json").json == [[]]
