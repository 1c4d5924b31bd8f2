"""What a store holds, as a note beside its changelog: so that a store's name is not taken for something else.

The note lies in the log, with the topic, and so outlives the state directory.

1. Two stores are of one kind when their rows are laid out alike, a window's bounds included, and their keys and values
   have one form: what one wrote, the other reads as what was meant.
2. What may change freely is no part of it: a window's grace and retention, the gap of sessions, where the rows lie.
   A class may get another name, or other fields, but not both at once: then it is another class.

Not here: which codecs a node has (operators), when it is compared (topics).
"""

import msgspec

from tailrace.streams.values.codec import TypeCodec
from tailrace.windows.session import SessionWindow
from tailrace.windows.window import Window

_PLAIN = "key-value"


class Form(msgspec.Struct, frozen=True, omit_defaults=True):
    """How keys or values become bytes: the codec's name, and the fields of a class."""

    codec: str
    fields: tuple[str, ...] = ()

    def like(self, other: "Form") -> bool:
        """Whether what the one wrote is what the other reads: the same, or a class that was renamed."""
        if self.codec == other.codec:
            return True
        # json(Click) and json(View): one form with the classes left out.
        same_form = self.codec.partition("(")[0] == other.codec.partition("(")[0]
        return same_form and self.fields == other.fields != ()


class KeptAs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store holds: how its rows are laid out, and the forms of keys and values. Prints as errors show it."""

    rows: str
    key: Form
    value: Form
    source: str = ""
    """The topic that it is restored from, where it has no changelog (backed)."""

    def like(self, other: "KeptAs") -> bool:
        """Whether the one may go on with what the other wrote."""
        alike = self.rows == other.rows and bool(self.source) == bool(other.source)
        return alike and self.key.like(other.key) and self.value.like(other.value)

    def note(self) -> str:
        """As it stands beside the changelog: one JSON object."""
        return msgspec.json.encode(self).decode()

    def __str__(self) -> str:
        restored = f" that is restored from topic {self.source!r}" if self.source else ""
        return f"{self.rows} store of {self.key.codec} to {self.value.codec}{restored}"


def kept_as(key: TypeCodec, value: TypeCodec, window: Window | None = None, *, rows: str | None = None) -> KeptAs:
    """What a store holds that a node or the program keeps, by its codecs and the window that its rows are of.

    `rows` is for stores that have neither plain rows nor windows.
    """
    return KeptAs(rows or _rows(window), Form(key.name, key.fields), Form(value.name, value.fields))


def from_note(note: str) -> KeptAs | None:
    """What a note says; None for one of another form, which no app of this version has written."""
    try:
        return msgspec.json.decode(note, type=KeptAs)
    except msgspec.DecodeError:
        return None


def _rows(window: Window | None) -> str:
    if window is None:
        return _PLAIN
    if isinstance(window, SessionWindow):
        return "session"  # rows have their bounds in them, whatever the gap was
    return str(window).partition(", grace=")[0].removesuffix(")") + ")"
