"""The window of a stream-stream join: which times of the two sides belong together, and until when.

1. A left record at l and a right one at r are a pair exactly if l - before <= r <= l + after. Either bound may be
   negative, as long as some time is left between them.
2. A record's window is closed when the clock is past the last time that a partner can have, or its own where that is
   later, and the grace: a record that comes then is late, and one that has no partner by then will have none.
3. A record is of use to partners that are not late until `retention_ms` after its own time.
"""

from dataclasses import dataclass

from tailrace.windows.duration import format_ms


@dataclass(frozen=True, kw_only=True)
class JoinWindow:
    """How far before and after a left record its right partners may be, and the grace, in ms."""

    before_ms: int
    after_ms: int
    grace_ms: int = 0

    def __post_init__(self) -> None:
        if self.before_ms + self.after_ms < 0:
            raise ValueError(
                f"before={format_ms(self.before_ms)} and after={format_ms(self.after_ms)} leave no time for a partner: "
                "their sum is negative"
            )
        if self.grace_ms < 0:
            raise ValueError(f"grace={format_ms(self.grace_ms)} is negative")

    @property
    def takes_itself(self) -> bool:
        """Whether two records of one time are a pair."""
        return self.before_ms >= 0 and self.after_ms >= 0

    @property
    def left_open_ms(self) -> int:
        """A left record's window is closed when its time + this < the clock."""
        return max(self.after_ms, 0) + self.grace_ms

    @property
    def right_open_ms(self) -> int:
        """The same of a right record."""
        return max(self.before_ms, 0) + self.grace_ms

    @property
    def either_open_ms(self) -> int:
        """The same of a record that is on both sides."""
        return max(self.left_open_ms, self.right_open_ms)

    @property
    def retention_ms(self) -> int:
        """From this long after a record's time on, no record that is not late can be its partner."""
        return max(self.after_ms, 0) + max(self.before_ms, 0) + self.grace_ms + 1

    @property
    def either_retention_ms(self) -> int:
        """The same where records are on both sides."""
        return max(self.before_ms, self.after_ms, 0) + self.either_open_ms + 1

    def __str__(self) -> str:
        grace = f", grace={format_ms(self.grace_ms)}" if self.grace_ms else ""
        return f"pairs(before={format_ms(self.before_ms)}, after={format_ms(self.after_ms)}{grace})"
