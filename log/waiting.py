"""Who waits for data of which partition, and how they are woken.

1. A wake-up is never lost: a waiter registers first and looks at the log end after, a writer moves the log end first
   and looks for waiters after. Appending takes no lock for it, and costs one dict look-up where nobody waits.
2. A wake-up says "look again", no more: it may come without data.
"""

import threading
from collections.abc import Callable, Iterable

from tailrace.log.record import TopicPartition

Wake = Callable[[], None]


class Waiting:
    """The waiters of one log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Values are replaced, never changed in place, so that a writer can walk one without the lock.
        self._waiters: dict[TopicPartition, tuple[Wake, ...]] = {}
        # With what each waits for; also those that wait for no partition: members of a group without a share.
        self._every: list[tuple[Wake, tuple[TopicPartition, ...]]] = []
        self.canonical: Callable[[TopicPartition], TopicPartition] = lambda partition: partition
        """What a partition is called, whatever name it is asked for by."""

    def add(self, partitions: Iterable[TopicPartition], wake: Wake) -> None:
        """`wake` is called, by the writer's thread, after each append to one of `partitions`: it must not block."""
        places = tuple(map(self.canonical, partitions))
        with self._lock:
            self._every.append((wake, places))
            for partition in places:
                self._waiters[partition] = (*self._waiters.get(partition, ()), wake)

    def remove(self, wake: Wake) -> None:
        """Takes `wake` out again; once for each `add`."""
        with self._lock:
            at = next(index for index, (each, _) in enumerate(self._every) if each is wake)
            _, places = self._every.pop(at)
            for partition in places:
                left = tuple(each for each in self._waiters.get(partition, ()) if each is not wake)
                if left:
                    self._waiters[partition] = left
                else:
                    self._waiters.pop(partition, None)

    def appended(self, partition: TopicPartition) -> None:
        """Wakes those who wait for this partition: its end has moved, or its last stable offset."""
        for wake in self._waiters.get(self.canonical(partition), ()):
            wake()

    def wake_all(self) -> None:
        """Wakes everybody: something other than data has changed."""
        with self._lock:
            every = [wake for wake, _ in self._every]
        for wake in every:
            wake()
