"""A replay takes the place of its app, and gives it back: outputs, readers, offsets and state, in one step."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tailrace.errors import DiskFullError, InvalidError, TopicNotFoundError
from tailrace.log.client import Log
from tailrace.log.record import TopicPartition
from tailrace.streams.app import App
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.engine import contents
from tailrace.tests.support.programs import results
from tailrace.tests.support.waiting import until

OUT = TopicPartition("totals", 0)


def shop(log: Log, factor: int) -> App:
    """Totals per key, of what comes times a factor: the bug is a factor of 1. Behind a repartition."""
    app = App("shop", log=log)
    numbers = app.stream(app.topic("in", key=str, value=int)).map(lambda value: value * factor)
    by_parity = numbers.group_by(lambda value: "odd" if value // factor % 2 else "even")
    by_parity.reduce(lambda a, b: a + b, store="totals").to(app.topic("totals", key=str, value=int))
    return app


def feed(log: Log, numbers: range) -> None:
    with log.producer() as producer:
        for number in numbers:
            producer.send("in", number.to_bytes(8, "big"), key=b"%d" % number, timestamp_ms=number * 1_000)


def last(log: Log, topic: str = "totals") -> dict[str, int]:
    return dict(results(log, topic))


def totals(numbers: range, factor: int) -> dict[str, int]:
    return {
        name: factor * sum(number for number in numbers if number % 2 == odd) for name, odd in (("even", 0), ("odd", 1))
    }


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An app that is wrong and has run over the numbers 0 to 9, and its replay, which is right."""
    with Log.open(str(tmp_path / "log")) as opened:
        opened.create_topic("in", partitions=2)
        feed(opened, range(10))
        shop(opened, 1).run(until="end")
        with shop(opened, 10).replay(into="v2") as job:
            job.run()
        yield opened


def promote(log: Log) -> None:
    with shop(log, 10).replay(into="v2") as job:
        job.run()
        job.promote()


def undo(log: Log) -> None:
    with shop(log, 10).replay(into="v2") as job:
        job.undo()


def test_the_new_program_goes_on_where_the_replay_was_and_the_old_one_after_undo(log: Log) -> None:
    assert last(log) == totals(range(10), 1)
    promote(log)
    assert last(log) == totals(range(10), 10)
    assert last(log, "totals.before-v2") == totals(range(10), 1)
    feed(log, range(10, 20))
    summary = shop(log, 10).run(until="end")
    assert summary.records_in == 10, "what the replay has read is read"
    assert last(log) == totals(range(20), 10)
    assert last(log, "totals.before-v2") == totals(range(10), 1)
    undo(log)
    assert last(log) == totals(range(10), 1)
    assert shop(log, 1).run(until="end").records_in == 10, "the old one goes on where it was"
    assert last(log) == totals(range(20), 1)
    assert last(log, "totals.v2") == totals(range(20), 10)
    feed(log, range(20, 30))
    with shop(log, 10).replay(into="v2") as job, pytest.raises(InvalidError, match="10 records of its input are left"):
        job.promote()
    promote(log)
    assert last(log) == totals(range(30), 10)


def test_the_state_of_either_is_found_and_not_made_anew(log: Log) -> None:
    for change, factor in ((promote, 10), (undo, 1)):
        change(log)
        read: dict[str, int] = {}

        def progress(store: str, read: dict[str, int] = read) -> Callable[[int, int], None]:
            def note(_done: int, total: int) -> None:
                read[store] = total

            return note

        app = shop(log, factor)
        app.on_restore = progress
        app.run(until="end")
        assert read
        assert set(read.values()) <= {0, 1}, "at most the marker of the last commit"


def test_readers_see_one_clean_switch(log: Log) -> None:
    with log.consumer(group="readers") as reader:
        reader.subscribe(["totals"])
        before = [record for some in iter(lambda: reader.poll(0), []) for record in some]
        assert max(record.timestamp_ms for record in before) == 9_000
        reader.commit()
        promote(log)
        assert reader.poll(0) == [], "of what it has read in time nothing comes twice"
        feed(log, range(10, 12))
        shop(log, 10).run(until="end")
        after = [record for some in iter(lambda: reader.poll(0), []) for record in some]
        found = {(record.key or b"").decode(): int.from_bytes(record.value or b"", "big") for record in after}
        assert found == totals(range(12), 10)
        assert {record.topic for record in after} == {"totals"}
        reader.commit()
    undo(log)
    with log.consumer(group="readers") as reader:
        reader.subscribe(["totals"])
        assert reader.poll(0) == []
    shop(log, 1).run(until="end")
    with log.consumer(group="readers") as reader:
        reader.subscribe(["totals"])
        assert len(reader.poll(0)) > 0


async def test_an_app_that_reads_the_output_goes_on_behind_the_switch(log: Log) -> None:
    def downstream() -> App:
        app = App("copy", log=log)
        app.stream(app.topic("totals", key=str, value=int)).to(app.topic("copied", key=str, value=int))
        return app

    async with downstream().running():
        await until(lambda: dict(results(log, "copied")) == totals(range(10), 1))
        count = len(contents(log, "copied"))
        promote(log)
        feed(log, range(10, 20))
        shop(log, 10).run(until="end")
        await until(lambda: dict(results(log, "copied")) == totals(range(20), 10))
    new = [record for record in contents(log, "totals") if record.timestamp_ms > 9_000]
    assert len(contents(log, "copied")) == count + len(new), "each once"


@pytest.mark.parametrize("running", ["app", "replay"])
async def test_nothing_moves_while_either_runs(log: Log, running: str) -> None:
    app = shop(log, 1) if running == "app" else App("shop.v2", log=log)
    if running == "replay":
        app.stream(app.topic("in", key=str, value=int)).to(app.topic("x", key=str, value=int))
    name = "shop" if running == "app" else r"shop\.v2"
    async with app.running():
        told = rf"app '{name}' runs now, as consumer-\d+: stop it first"
        with shop(log, 10).replay(into="v2") as job, pytest.raises(InvalidError, match=told):
            job.promote()
    assert log.switches() == []


def test_what_is_not_ready_or_done_already_is_refused(log: Log) -> None:
    feed(log, range(10, 13))
    with shop(log, 10).replay(into="v2") as job:
        with pytest.raises(InvalidError, match="is not at the end: 3 records of its input are left"):
            job.promote()
        with pytest.raises(InvalidError, match="is not promoted"):
            job.undo()
    with shop(log, 10).replay(into="v3") as job, pytest.raises(InvalidError, match="has not begun"):
        job.promote()
    promote(log)
    with shop(log, 10).replay(into="v2") as job:
        for step in (job.promote, job.run, job.discard):
            with pytest.raises(InvalidError, match="was promoted, and cannot be"):
                step()


def test_where_input_never_stands_still_some_may_be_left(log: Log) -> None:
    feed(log, range(10, 13))
    with shop(log, 10).replay(into="v2") as job:
        with pytest.raises(ValueError, match="below 0"):
            job.promote(behind=-1)
        with pytest.raises(InvalidError, match="3 records of its input are left"):
            job.promote(behind=2)
        job.promote(behind=3)
    assert shop(log, 10).run(until="end").records_in == 3
    assert last(log) == totals(range(13), 10)


def test_a_promoted_replay_is_compared_with_what_was_there_before(log: Log) -> None:
    promote(log)
    with shop(log, 10).replay(into="v2") as job:
        found = job.diff(job.topic("totals"))
        assert {each.key: (each.before, each.after) for each in found.samples} == {
            name: (total, total * 10) for name, total in totals(range(10), 1).items()
        }
        job.drop_old()
        with pytest.raises(TopicNotFoundError, match=r"no topic 'totals\.before-v2' any more"):
            job.diff(job.topic("totals"))


def test_dead_letters_are_an_output_like_the_others(log: Log) -> None:
    def reader(mended: bool) -> App:
        app = App("reader", log=log, on_bad_record="dead_letter")
        numbers = app.topic("numbers", key=bytes, value=bytes if mended else int)
        app.stream(numbers).map(str, value=str).to(app.topic("texts", key=bytes, value=str))
        return app

    log.create_topic("numbers")
    with log.producer() as producer:
        producer.send_many("numbers", [bytes(8), b"bad"], keys=[b"a", b"b"])
    reader(False).run(until="end")
    assert [record.value for record in contents(log, "reader-dead-letters")] == [b"bad"]
    with reader(True).replay(into="v2") as job:
        job.run()
        job.promote()
        assert contents(log, "reader-dead-letters") == []
        assert [record.value for record in contents(log, "reader-dead-letters.before-v2")] == [b"bad"]
        job.undo()
    assert [record.value for record in contents(log, "reader-dead-letters")] == [b"bad"]


def wider(log: Log, factor: int, partitions: int | None) -> App:
    """The program with another number of partitions between its tasks; another store, too, where none is given."""
    app = App("shop", log=log)
    numbers = app.stream(app.topic("in", key=str, value=int)).map(lambda value: value * factor)
    by_parity = numbers.group_by(lambda value: "odd" if value // factor % 2 else "even", partitions=partitions)
    store = "totals" if partitions else "sums"
    by_parity.reduce(lambda a, b: a + b, store=store).to(app.topic("totals", key=str, value=int, partitions=2))
    return app


def test_the_new_program_may_have_other_partitions_between_its_tasks(log: Log) -> None:
    with wider(log, 10, 5).replay(into="wide") as job:
        job.run()
        job.promote()
        feed(log, range(10, 20))
        wider(log, 10, 5).run(until="end")
        assert last(log) == totals(range(20), 10)
        job.undo()
    shop(log, 1).run(until="end")
    assert last(log) == totals(range(20), 1)


def test_a_store_that_the_new_program_has_not_does_not_come_back_with_what_it_held(log: Log) -> None:
    with wider(log, 10, None).replay(into="sums") as job:
        job.run()
        job.promote()
    assert "shop-totals-changelog" not in log.topics(internal=True)
    shop(log, 100).run(until="end")  # a third program, again with that store: it begins empty
    feed(log, range(10, 20))
    shop(log, 100).run(until="end")
    assert last(log) == totals(range(10, 20), 100)
    with wider(log, 10, None).replay(into="sums") as job:
        job.undo()
    shop(log, 1).run(until="end")
    assert last(log) == totals(range(20), 1)


def test_a_promoted_app_is_reset_as_what_it_is_now(log: Log) -> None:
    promote(log)
    app = shop(log, 10)
    plan = app.reset(dry_run=False)
    assert plan.offsets == {TopicPartition("in", number): 0 for number in (0, 1)}
    assert [name for name in plan.deleted if "/" not in name] == sorted(
        name for name in plan.deleted if name.startswith("shop-")
    )
    assert {Path(name).parent.name for name in plan.deleted if "/" in name} == {"shop.v2"}
    assert app.run(until="end").records_in == 10
    assert last(log) == totals(range(10), 10)
    undo(log)
    assert last(log) == totals(range(10), 1)
    feed(log, range(10, 20))
    assert shop(log, 1).run(until="end").records_in == 10, "what it leads back to was left alone"
    assert last(log) == totals(range(20), 1)
    with shop(log, 10).replay(into="v2") as job:
        assert job.run().records_in == 10, "and so was what the reset began"
        job.promote()
    assert last(log) == totals(range(20), 10)


def test_what_was_replaced_can_be_deleted(log: Log, tmp_path: Path) -> None:
    with shop(log, 10).replay(into="v2") as job:
        with pytest.raises(InvalidError, match="is not promoted, so it has replaced nothing"):
            job.drop_old()
        job.promote()
        job.drop_old()
        job.drop_old()  # where it was broken off
        with pytest.raises(InvalidError, match="was dropped"):
            job.undo()
        for step in (job.promote, job.run, job.discard):
            with pytest.raises(InvalidError, match="was promoted, and cannot be"):
                step()
    folders = sorted(each.name for each in (tmp_path / "log").iterdir() if each.name.startswith(("shop", "totals")))
    assert {name.rpartition("-")[0] for name in folders} == {
        "shop.v2-replay",
        "shop.v2-totals-changelog",
        "shop.v2-totals-repartition",
        "totals.v2",
    }
    assert [each.name for each in (tmp_path / "log/state").iterdir()] == ["shop.v2"]
    feed(log, range(10, 20))
    assert shop(log, 10).run(until="end").records_in == 10
    assert last(log) == totals(range(20), 10)
    with shop(log, 100).replay(into="v3") as job:
        job.run()
        job.promote()
        assert last(log) == totals(range(20), 100)
        job.undo()
        assert last(log) == totals(range(20), 10)
        job.promote()
        job.drop_old()
    assert shop(log, 100).run(until="end").records_in == 0
    assert last(log) == totals(range(20), 100)


@pytest.mark.parametrize("stateful", [False, True])
def test_an_app_that_read_the_output_before_goes_on_behind_the_switch(log: Log, stateful: bool) -> None:
    def downstream() -> App:
        app = App("copy", log=log)
        read = app.topic("totals", key=str, value=int)
        copied = app.topic("copied", key=str, value=int)
        if stateful:
            app.table(read, store="copies").to(copied)
        else:
            app.stream(read).to(copied)
        return app

    downstream().run(until="end")
    promote(log)
    feed(log, range(10, 20))
    shop(log, 10).run(until="end")
    summary = downstream().run(until="end")
    new = [record for record in contents(log, "totals") if record.timestamp_ms > 9_000]
    assert summary.records_in == len(new)
    assert dict(results(log, "copied")) == totals(range(20), 10)
    undo(log)
    shop(log, 1).run(until="end")
    downstream().run(until="end")
    assert dict(results(log, "copied")) == totals(range(20), 1)


@pytest.mark.parametrize("step", ["promote", "undo", "drop_old"])
def test_a_full_disk_leaves_the_old_or_the_new(step: str) -> None:
    refused = 0
    for room in (0, 200, 500, 1_000, 2_000):
        disk = FaultyDisk()
        with Log.open("memory:", disk=disk, background=False) as log:
            log.create_topic("in")
            feed(log, range(4))
            shop(log, 1).run(until="end")
            with log.consumer(group="readers") as reader:
                reader.subscribe(["totals"])
                reader.poll(0)
                reader.commit()
            with shop(log, 10).replay(into="v2") as job:
                job.run()
                if step != "promote":
                    job.promote()
                before = log.switches(), last(log), log.committed("readers")[OUT], log.committed("shop")
                disk.capacity = disk.used() + room
                try:
                    getattr(job, step)()
                    disk.capacity = None
                except DiskFullError:
                    refused += 1
                    assert before == (log.switches(), last(log), log.committed("readers")[OUT], log.committed("shop"))
                    disk.capacity = None
                    getattr(job, step)()
            factor = 1 if step == "undo" else 10
            feed(log, range(4, 8))
            assert shop(log, factor).run(until="end").records_in == 4
            assert last(log) == totals(range(8), factor)
    assert refused


def test_a_replay_of_a_promoted_app(log: Log) -> None:
    promote(log)
    with shop(log, 100).replay(into="v3") as job:
        job.run()
        assert job.diff(job.topic("totals")).changed == 2
        job.promote()
    assert last(log) == totals(range(10), 100)
    assert last(log, "totals.before-v3") == totals(range(10), 10)
    with shop(log, 10).replay(into="v2") as job, pytest.raises(InvalidError, match=r"'shop\.v3' came after 'shop\.v2'"):
        job.undo()
    with shop(log, 100).replay(into="v3") as job:
        job.undo()
    assert last(log) == totals(range(10), 10)
    feed(log, range(10, 20))
    shop(log, 10).run(until="end")
    assert last(log) == totals(range(20), 10)


@pytest.mark.parametrize("back", [False, True])
def test_a_power_loss_at_any_step_leaves_the_old_or_the_new(back: bool) -> None:
    """Whatever is found afterwards, the program that belongs to it goes on and comes to what it should."""
    for step in range(0, 200, 3):
        disk = FaultyDisk(step)

        def opened(disk: FaultyDisk = disk) -> Log:
            return Log.open("memory:", disk=disk, background=False)

        log, done = opened(), False
        log.create_topic("in")
        feed(log, range(4))
        shop(log, 1).run(until="end")
        with shop(log, 10).replay(into="v2") as job:
            job.run()
            if back:
                job.promote()
            disk.power_loss_after(step)
            with suppress(PowerLossError):
                (job.undo if back else job.promote)()
                done = True
        disk.crash()
        with opened() as log:
            new = log.switches() == ["shop.v2"]
            assert not done or new == (not back)
            factor = 10 if new else 1
            assert last(log) == totals(range(4), factor)
            feed(log, range(4, 8))
            app = shop(log, factor)
            assert app.run(until="end").records_in == 4
            assert last(log) == totals(range(8), factor)
        if done:
            return
    raise AssertionError("it never came to its end")
