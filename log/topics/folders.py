"""Takes partitions' folders away: what is the log's own, and never what somebody has put there.

Not here: which folders are wanted (`catalog`), what stands in them (`layout`).
"""

import logging
from collections.abc import Callable

from tailrace.log.disk import Disk, join
from tailrace.log.topics.layout import is_known

logger = logging.getLogger(__name__)


class Folders:
    """The partitions' folders of one log. `new_id` gives names that are free to what is on its way out."""

    def __init__(self, disk: Disk, path: str, new_id: Callable[[], str]) -> None:
        self._disk = disk
        self._path = path
        self._new_id = new_id

    def foreign(self, folder: str) -> list[str]:
        """What stands in a partition's folder and was never put there by a log: not ours to remove."""
        path = join(self._path, folder)
        return [name for name in self._disk.list(path) if not is_known(name) or self._disk.is_dir(join(path, name))]

    def remove(self, folder: str) -> None:
        """Removes a partition's folder with what is ours in it."""
        doomed = folder
        if not folder.endswith("-delete"):
            # Kafka's form: a crash from here on leaves a name that nobody takes for a partition.
            doomed = f"{folder}.{self._new_id()}-delete"
            self._disk.rename(join(self._path, folder), join(self._path, doomed))
            self._disk.sync_dir(self._path)
        foreign = self.foreign(doomed)
        if not foreign:
            self._disk.remove_tree(join(self._path, doomed))
            return
        logger.warning("%s: left, as %s in it is none of the log's files", join(self._path, doomed), foreign[0])
        for name in self._disk.list(join(self._path, doomed)):
            if name not in foreign:
                self._disk.remove(join(self._path, doomed, name))
