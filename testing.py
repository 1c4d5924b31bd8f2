"""For tests of programs: run an app record by record, without threads and without a disk (docs/guides/testing.md)."""

from tailrace.streams.testing import TopologyDriver

__all__ = ["TopologyDriver"]
