"""Where data of others stand that some tests read: `shared`, beside the repository. Without it they are left out."""

from pathlib import Path

import pytest

from tailrace.tests.support.source import ROOT

SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
SEGMENTS = DATA / "kafka_segments"
KAFKA = SHARED / "kafka" / "kafka"

needs_segments = pytest.mark.skipif(not SEGMENTS.is_dir(), reason=f"no segments of real Kafka at {SEGMENTS}")
needs_kafka = pytest.mark.skipif(not KAFKA.is_file(), reason=f"no Kafka to run at {KAFKA}")


def shared_data(path: str) -> Path | None:
    """Give a file of the shared data, or None where there is none."""
    found = DATA / path
    return found if found.exists() else None
