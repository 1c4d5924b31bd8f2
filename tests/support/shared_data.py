"""The real data beside the checkout (`../shared/data`), where it is there."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def shared_data(path: str) -> Path | None:
    """Give a file of the shared data, or None where there is none."""
    found = DATA / path
    return found if found.exists() else None
