"""What a run has done so far: over several plans, and for whoever asks."""

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.streams.running.account import Account


def plan(*dropped: dict[str, int], sent: int = 0) -> Any:
    tasks = [
        SimpleNamespace(context=SimpleNamespace(dropped=Counter(each)), open_windows=lambda: 1) for each in dropped
    ]
    return SimpleNamespace(tasks=tasks, sent=sent)


@pytest.fixture
def account() -> Account:
    return Account(Log.open("memory:", background=False), ManualClock())


def test_what_was_not_committed_counts_no_more_once_another_plan_does_it_again(account: Account) -> None:
    first = plan({"late": 1}, sent=2)
    account.begin(first)
    account.ran(10)
    account.committed()
    first.sent = 5
    first.tasks[0].context.dropped["late"] = 4
    account.ran(7)
    now = account.summary()
    assert (now.records_in, now.records_out, now.dropped) == (17, 5, {"late": 4})
    account.begin(plan({}, {"error": 1}, sent=1))
    account.ran(7)
    now = account.summary()
    assert (now.records_in, now.records_out, now.dropped) == (17, 3, {"late": 1, "error": 1})
    assert now.open_windows == 2


def test_tasks_that_leave_a_plan_have_done_what_they_did(account: Account) -> None:
    both = plan({"late": 1}, {"late": 2, "error": 1})
    account.begin(both)
    account.committed()
    account.removed([both.tasks.pop()])
    assert account.summary().dropped == {"late": 3, "error": 1}
    account.committed()
    account.begin(plan({}))
    assert account.summary().dropped == {"late": 3, "error": 1}


def test_another_thread_is_answered_by_the_one_that_runs(account: Account) -> None:
    """Between two slices; or when the run ends, whatever comes first."""
    account.begin(plan({}))
    found: list[int] = []

    def ask() -> None:
        found.append(account.summary().records_in)

    for last in (False, True):
        asking = threading.Thread(target=ask)
        with account.running():
            account.ran(1)
            asking.start()
            while not last and asking.is_alive():
                account.answer()
        asking.join()
    assert found == [1, 2]


def test_what_goes_wrong_in_the_answer_is_for_who_asked(account: Account) -> None:
    broken = plan({})
    broken.tasks[0].open_windows = lambda: 1 // 0
    account.begin(broken)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            account.summary()
        except ZeroDivisionError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    with account.running():
        asking.start()
        while asking.is_alive():
            account.answer()
    assert len(failed) == 1


def test_no_run_begins_while_another_thread_looks_at_its_stores(account: Account) -> None:
    made, order = plan({}), list[str]()

    def run() -> None:
        with account.running():
            order.append("run")

    running = threading.Thread(target=run)

    def look() -> int:
        running.start()
        running.join(0.05)  # as long as it would take to begin, if it could
        order.append("looked")
        return 1

    made.tasks[0].open_windows = look
    account.begin(made)
    assert account.summary().open_windows == 1
    made.tasks[0].open_windows = lambda: 1
    running.join()
    assert order == ["looked", "run"]


def test_what_a_run_came_to_is_kept_as_its_stores_are_closed_after_it(account: Account) -> None:
    made = plan({})
    account.begin(made)
    with account.running():
        account.ran(3)
    made.tasks[0].open_windows = lambda: 1 // 0
    assert account.summary().records_in == 3
