"""What a run did, in numbers."""

from collections.abc import Mapping

import msgspec


class Summary(msgspec.Struct, frozen=True):
    """The result of `App.run`."""

    records_in: int
    """Records read from the app's topics."""
    records_out: int
    """Records written to output topics and dead letters."""
    dropped: Mapping[str, int]
    """Records that went no further, by reason: "late", "null_key", "null_value", "bad_record", "error", "deleted".

    "error" counts each time that a function raised, where the app goes on after that. "deleted" is what retention or
    `delete_records` took before the app had read it, counted by offsets."""
    open_windows: int
    """Results in windows that are not closed; a later run goes on with them."""
    seconds: float
    """How long it ran, start-up included."""
