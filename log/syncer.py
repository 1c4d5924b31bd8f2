"""Group commit: one thread syncs for all who wait.

1. What is asked for while a sync runs is served by the next one, together: a hundred writers cost one `fdatasync` per
   file.
2. A callback runs after its partition's bytes are on disk, or with the error that kept them off it.
3. After a failed sync nobody knows what is on disk (the kernel may have dropped the pages and forgotten the error), so
   whoever calls must not write to that partition again before it is opened anew. Here: the error goes to every
   callback.
4. Who waits for several partitions at once, a commit, syncs them itself with the help of the same threads
   (`sync_all`): no wait for a round that is under way.

Measured on the design's machine: fdatasync of 16 / 64 files one after another takes 4 / 21 ms, by 8 threads 1.2 / 4.5.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

THREADS: Final = 8

Done = Callable[[BaseException | None], None]


class Syncable(Protocol):
    """What can be synced: a partition."""

    def sync(self) -> int:
        """Puts on disk what is not there yet."""
        ...


class Syncer:
    """Syncs partitions for those who ask. Without `background` the asking thread does it itself, at once."""

    def __init__(self, *, background: bool) -> None:
        self._background = background
        self._changed = threading.Condition()
        self._asked: dict[Syncable, list[Done]] = {}
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closing = False

    def request(self, target: Syncable, done: Done) -> None:
        """Calls `done` when what was appended to `target` up to now is on disk."""
        if not self._background:
            done(_sync(target))
            return
        with self._changed:
            waiting = self._asked.setdefault(target, [])
            waiting.append(done)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="tailrace-sync", daemon=True)
                self._thread.start()
            self._changed.notify()
            if not self._closing:
                return
            del self._asked[target]
        for each in waiting:  # closing: the thread may be gone
            each(_sync(target))

    def sync_all(self, targets: Iterable[Syncable]) -> None:
        """Returns when what was appended to these up to now is on disk; raises the first error after all were tried."""
        left = deque(targets)
        errors: list[BaseException] = []

        def work() -> None:
            while left:
                try:
                    target = left.popleft()
                except IndexError:  # another thread was quicker
                    return
                error = _sync(target)
                if error is not None:
                    errors.append(error)

        helpers = min(THREADS, len(left)) - 1 if self._background else 0
        helping: list[Future[None]] = []
        with suppress(RuntimeError):  # the interpreter ends and takes no work any more: this thread does all of it
            helping.extend(self._threads().submit(work) for _ in range(helpers))
        work()
        for each in helping:
            each.result()
        if errors:
            raise errors[0]

    def _threads(self) -> ThreadPoolExecutor:
        with self._changed:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tailrace-sync")
            return self._pool

    def close(self) -> None:
        """Serves what was asked for and stops."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._asked and not self._closing:
                    self._changed.wait()
                asked, self._asked = self._asked, {}
            if not asked:
                return
            targets = list(asked)
            outcomes = [_sync(targets[0])] if len(targets) == 1 else self._sync_each(targets)
            for target, error in zip(targets, outcomes, strict=True):
                for done in asked[target]:
                    done(error)

    def _sync_each(self, targets: list[Syncable]) -> list[BaseException | None]:
        try:
            return list(self._threads().map(_sync, targets))
        except RuntimeError:  # the interpreter ends: see sync_all; what was synced already costs nothing to sync again
            return [_sync(target) for target in targets]


def _sync(target: Syncable) -> BaseException | None:
    try:
        target.sync()
    except Exception as error:  # noqa: BLE001  # whatever it is belongs to those who wait, not to this thread
        return error
    return None
