"""The topics that a running app reads and keeps its state in: told by their ids from others of the same names.

A topic that is deleted and made anew has other records at the same offsets. An app that read on would leave out as many
of them as it had read of the old one; so nothing is committed any more.

Not here: what a start makes of a topic that is another one than before (plan).
"""

from collections.abc import Mapping

from tailrace.log.client import Log
from tailrace.log.errors import InvalidError, TopicNotFoundError


class TopicsInUse:
    """What `describe_topic` said of each when the app began."""

    def __init__(self, log: Log, app: str, used_for: Mapping[str, str]) -> None:
        """`used_for` says by topic what the app does with it, for messages: "it is read at file:line"."""
        self._log = log
        self._app = app
        self._used_for = dict(used_for)
        self._ids = {name: log.describe_topic(name).topic_id for name in used_for}

    def check(self) -> None:
        """Makes sure that they are what they were.

        Raises:
            InvalidError: one was deleted, and perhaps made anew.
        """
        for name, topic_id in self._ids.items():
            try:
                now = self._log.describe_topic(name).topic_id
            except TopicNotFoundError:
                raise InvalidError(self._told(name, "was deleted")) from None
            if now != topic_id:
                raise InvalidError(self._told(name, "was deleted and made anew"))

    def _told(self, name: str, what: str) -> str:
        return (
            f"topic {name!r} {what} while app {self._app!r} ran ({self._used_for[name]}), so nothing after the last "
            "commit was kept; start the app again to go on with a topic of that name as it is then, or under another "
            "name to begin anew"
        )
