"""Where data of others stand that some tests read: `shared`, beside the repository. Without it they are left out."""

import pytest

from tailrace.tests.support.source import ROOT

SHARED = ROOT.parent / "shared"
SEGMENTS = SHARED / "data" / "kafka_segments"
KAFKA = SHARED / "kafka" / "kafka"

needs_segments = pytest.mark.skipif(not SEGMENTS.is_dir(), reason=f"no segments of real Kafka at {SEGMENTS}")
needs_kafka = pytest.mark.skipif(not KAFKA.is_file(), reason=f"no Kafka to run at {KAFKA}")
