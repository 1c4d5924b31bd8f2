"""Whose pages are they? How many pages each user was the last to edit, and the bytes of those edits: tables of tables.

    tailrace topics create wiki-raw
    tailrace send wiki-raw wikiticker.ndjson.gz
    tailrace run tailrace.examples.last_editors --until end
    tailrace tail pages-held

A page has one last editor: the next edit takes it away from the one before. So the counts must also go down, and a sum
lose what a former edit had put in: a table grouped by something else takes back what a row gave before it changed.
`--until end` needs no event time here: a table is the latest by offset.
"""

from msgspec import Struct

from tailrace import App, reducers
from tailrace.examples.wiki_edits import Edit


class Held(Struct):
    """The pages that a user was the last to edit, so far."""

    pages: int
    added: int


def by_editor(_page: str | None, edit: Edit) -> tuple[str, Edit]:
    """Tell the group of a page, and what it gives to it."""
    return edit.user, edit


app = App("last-editors")

raw = app.topic("wiki-raw", key=bytes, value=Edit)
output = app.topic("pages-held", key=str, value=Held, compact=True)

pages = app.stream(raw).key_by(lambda edit: f"{edit.channel} {edit.page}").to_table(store="pages")
held = pages.group_by(by_editor).agg(
    Held, store="held", pages=reducers.count(), added=reducers.sum(lambda edit: edit.delta)
)
held.to(output)


if __name__ == "__main__":
    app.run()
