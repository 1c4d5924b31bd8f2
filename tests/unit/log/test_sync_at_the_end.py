"""Syncing while the interpreter ends: it starts no thread any more, and what was asked for is synced all the same."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tailrace.log.syncer import Syncer


class _File:
    def __init__(self) -> None:
        self.syncs = 0

    def sync(self) -> int:
        self.syncs += 1
        return self.syncs


def test_sync_all_does_it_alone_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Future[None]:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    files, syncer = [_File() for _ in range(5)], Syncer(background=True)
    syncer.sync_all(files)
    assert [each.syncs for each in files] == [1] * 5
    answers: list[BaseException | None] = []
    for each in files:
        syncer.request(each, answers.append)
    syncer.close()
    assert answers == [None] * 5
    assert all(each.syncs >= 2 for each in files)
