"""How far a replay has come, in numbers."""

from typing import NamedTuple

from tailrace.windows.duration import format_instant


class ReplayProgress(NamedTuple):
    """How far a replay has come, as its last commit has it."""

    records: int
    """Offsets of the input that were worked on."""
    total: int
    """Those that there are, up to where it ends."""
    rate: float
    """Records a second, since `run` began; 0 while it does not run."""
    seconds_left: float | None
    """At that rate; None where there is none."""
    event_time_ms: int | None
    """The largest time that all partitions with input have come to; None before the first commit."""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.records / self.total if self.total else 1.0

    def __str__(self) -> str:
        """For a person: `1,000 of 4,000 records (25 %), 500 records/s, 6 s left, at 2026-11-21T12:00:00.000Z`."""
        parts = [f"{self.records:,} of {self.total:,} records ({self.share:.0%})"]
        if self.rate:
            parts.append(f"{self.rate:,.0f} records/s")
        if self.seconds_left is not None:
            parts.append(f"{self.seconds_left:,.0f} s left")
        if self.event_time_ms is not None:
            parts.append(f"at {format_instant(self.event_time_ms)}")
        return ", ".join(parts)
