"""Who a running app is: kept over restarts, refused where it would be somebody else's."""

from contextlib import suppress
from pathlib import Path

import pytest

from tailrace.log.client import Log
from tailrace.log.disk import MemoryDisk, RealDisk, join
from tailrace.log.errors import CorruptError, InvalidError, LogLockedError
from tailrace.streams.running import identity
from tailrace.streams.running.identity import FILE, LOCK, take
from tailrace.tests.support.disk import FaultyDisk, PowerLossError
from tailrace.tests.support.programs import arrivals, click_app, last, plain_count, send

PATH = "/logs/state/shop"
CLICKS = arrivals(600, disorder_ms=5_000, step_ms=100)


def write(disk: MemoryDisk, name: str, text: str) -> None:
    disk.mkdir(PATH)
    file = disk.open(join(PATH, name), write=True)
    file.truncate(0)
    file.append(text.encode())


def text_of(disk: MemoryDisk) -> str:
    file = disk.open(join(PATH, FILE))
    return file.read(0, file.size).decode()


def test_it_stays_as_long_as_the_directory() -> None:
    disk = MemoryDisk()
    first = take(disk, PATH, "shop", "log-1")
    first.release()
    second = take(disk, PATH, "shop", "log-1")
    assert second.member_id == first.member_id
    assert second.transactional_id == f"shop-{first.member_id}"
    assert text_of(disk) == f"app=shop\ncluster.id=log-1\nmember.id={first.member_id}\nversion=1\n"
    second.release()
    disk.remove_tree(PATH)
    assert take(disk, PATH, "shop", "log-1").member_id != first.member_id


def test_one_in_memory_fences_the_one_before_it() -> None:
    assert identity.in_memory("shop").transactional_id == "shop-memory"


def test_a_directory_of_before_is_taken_over() -> None:
    disk = MemoryDisk()
    disk.mkdir(join(PATH, "0_3"))
    take(disk, PATH, "shop", "log-1").release()
    assert take(disk, PATH, "shop", "log-1").member_id


def test_a_log_that_is_another_one_each_time_is_not_compared() -> None:
    disk = MemoryDisk()
    take(disk, PATH, "shop", None).release()
    take(disk, PATH, "shop", "log-1").release()


@pytest.mark.parametrize(
    ("app", "cluster", "said"),
    [
        ("store", "log-1", r"state/shop belongs to app 'shop', not to 'store' .*state_dir of its own"),
        ("shop", "log-2", r"belongs to app 'shop' on the log log-1, and this is the log log-2 .*delete the directory"),
    ],
)
def test_another_ones_is_refused(app: str, cluster: str, said: str) -> None:
    disk = MemoryDisk()
    take(disk, PATH, "shop", "log-1").release()
    before = text_of(disk)
    with pytest.raises(InvalidError, match=said):
        take(disk, PATH, app, cluster)
    assert text_of(disk) == before
    take(disk, PATH, "shop", "log-1")  # and is not left locked


def test_one_that_is_in_use_is_refused() -> None:
    disk = MemoryDisk()
    first = take(disk, PATH, "shop", "log-1")
    with pytest.raises(LogLockedError, match=r"state/shop of app 'shop' is in use by process .*state_dir of its own"):
        take(disk, PATH, "shop", "log-1")
    first.release()
    first.release()
    take(disk, PATH, "shop", "log-1")


def test_a_newer_version_is_refused() -> None:
    disk = MemoryDisk()
    write(disk, FILE, "version=2\nwhatever=3\n")
    with pytest.raises(InvalidError, match=r"member.properties has version 2, and this tailrace knows 1: .*newer"):
        take(disk, PATH, "shop", "log-1")


@pytest.mark.parametrize("text", ["", "version=1\n", "version=x\napp=shop\nmember.id=m\ncluster.id=\n", "\x00\xff"])
def test_one_that_cannot_be_read_is_corrupt(text: str) -> None:
    disk = MemoryDisk()
    write(disk, FILE, text)
    with pytest.raises(CorruptError, match=r"member.properties cannot be read: expected lines version, app") as caught:
        take(disk, PATH, "shop", "log-1")
    assert caught.value.file == join(PATH, FILE)


def test_other_peoples_directories_are_not_written_to() -> None:
    disk = MemoryDisk()
    write(disk, "letter.txt", "Dear Sir")
    with pytest.raises(InvalidError, match=r"holds 'letter.txt', so it is no state directory.*nothing was written"):
        take(disk, PATH, "shop", "log-1")
    assert disk.list(PATH) == ["letter.txt"]


def test_a_file_in_its_place_is_refused() -> None:
    disk = MemoryDisk()
    disk.mkdir("/logs/state")
    disk.open(PATH, write=True)
    with pytest.raises(InvalidError, match="is a file"):
        take(disk, PATH, "shop", "log-1")


@pytest.mark.parametrize("step", range(1, 12))
def test_a_crash_while_it_is_made_leaves_none_or_all_of_it(step: int) -> None:
    disk = FaultyDisk(step)
    disk.power_loss_after(step)
    found: str | None = None
    with suppress(PowerLossError):
        found = take(disk, PATH, "shop", "log-1").member_id
    disk.crash()
    again = take(disk, PATH, "shop", "log-1")
    assert found in {None, again.member_id}


# ---- an app's


def test_an_app_keeps_it_in_its_state_directory(tmp_path: Path) -> None:
    members: set[str] = set()
    with Log.open(str(tmp_path / "log")) as log:
        log.create_topic("clicks", partitions=4)
        send(log, CLICKS)
        for _ in range(2):
            click_app(log).run(until="end")
            members.add((tmp_path / "log/state/counter" / FILE).read_text())
        assert last(log) == plain_count(CLICKS)
    (text,) = members
    assert "app=counter\n" in text
    assert f"cluster.id={log.cluster_id}\n" in text


def test_two_logs_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "a")) as one, Log.open(str(tmp_path / "b")) as two:
        for log in (one, two):
            log.create_topic("clicks", partitions=4)
            send(log, CLICKS)
        click_app(one, state_dir=str(tmp_path / "state")).run(until="end")
        with pytest.raises(InvalidError, match=f"on the log {one.cluster_id}, and this is the log {two.cluster_id}"):
            click_app(two, state_dir=str(tmp_path / "state")).run(until="end")
        assert "counts" not in two.topics(), "nothing is made before it is refused"
        lock = RealDisk().lock(str(tmp_path / "state/counter" / LOCK))
        with pytest.raises(LogLockedError, match="is in use by process"):
            click_app(one, state_dir=str(tmp_path / "state")).run(until="end")
        lock.release()
        click_app(one, state_dir=str(tmp_path / "state")).run(until="end")


def test_a_second_member_has_a_directory_and_an_identity_of_its_own() -> None:
    disk = MemoryDisk()
    first = take(disk, identity.directory("/logs/state", "shop"), "shop", "log-1")
    second = take(disk, identity.directory("/logs/state", "shop", 1), "shop", "log-1")
    assert identity.directory("/logs/state", "shop", 1) == f"{PATH}/member-1"
    assert first.member_id != second.member_id
    first.release()
    second.release()
    assert take(disk, PATH, "shop", "log-1").member_id == first.member_id, "and the first still takes its own"
    assert identity.in_memory("shop", 1).transactional_id == "shop-memory-1"
