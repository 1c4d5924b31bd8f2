"""Sessions of editors: edits of one user with no more than ten minutes between them, sent when the user has gone.

    tailrace topics create wiki-raw
    tailrace send wiki-raw wikiticker.ndjson.gz
    tailrace run tailrace.examples.editing_sessions --until end
    tailrace tail editing-sessions

A session has no size of its own: an edit opens one, and one that lies between two makes one of both. So every reducer
must be able to merge, as all of `tailrace.reducers` are. The recording and its wrong dates: see `wiki_edits`.
"""

from datetime import datetime

from msgspec import Struct

from tailrace import App, Windowed, minutes, reducers, seconds, session
from tailrace.examples.wiki_edits import Edit, on_the_day


class Work(Struct):
    """What is kept of a session."""

    edits: int
    bytes_added: int
    pages: list[str]


class Session(Struct):
    """What a user did in one go: final."""

    user: str
    begin: datetime
    end: datetime  # of the last edit
    edits: int
    bytes_added: int
    pages: list[str]


def as_session(window: Windowed[str], work: Work) -> tuple[str, Session]:
    """Make a row of a session, keyed by user."""
    return window.key, Session(window.key, window.start, window.end, work.edits, work.bytes_added, work.pages)


app = App("editing-sessions")

raw = app.topic("wiki-raw", key=bytes, value=Edit)
edits = app.topic("wiki-edits-of-users", key=bytes, value=Edit, timestamp=lambda edit: edit.time)
output = app.topic("editing-sessions", key=str, value=Session)

sessions = (
    app.stream(raw)
    .filter(on_the_day)
    .through(edits)
    .group_by(lambda edit: edit.user)
    .windowed_by(session(minutes(10), grace=seconds(5)))
    .agg(
        Work,
        store="sessions",
        emit="close",
        edits=reducers.count(),
        bytes_added=reducers.sum(lambda edit: edit.delta),
        pages=reducers.distinct(lambda edit: edit.page),
    )
)
sessions.changes().map_kv(as_session).to(output)


if __name__ == "__main__":
    app.run()
