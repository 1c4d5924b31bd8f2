"""How many of a partition's oldest segments retention lets go: too old, too much, or below the log start.

1. It is whole segments that go, from the head on; what a policy keeps ends the walk.
2. An empty segment never goes for its age or size: nothing is won.

Not here: the deleting itself (`partition`, `segments`).
"""

from tailrace.log.partition.segments import Segments
from tailrace.log.topic import TopicConfig


def surplus_segments(segments: Segments, config: TopicConfig, *, log_start_offset: int, now_ms: int) -> int:
    """How many segments may go now; all of them where even the active one is too old or too much."""
    count = _below(segments, log_start_offset)
    if config.deleted:
        count = max(count, _expired(segments, config, now_ms), _surplus(segments, config))
    return count


def _below(segments: Segments, log_start_offset: int) -> int:
    bases = segments.base_offsets
    count = 0
    while count + 1 < len(bases) and bases[count + 1] <= log_start_offset:
        count += 1
    return count


def _expired(segments: Segments, config: TopicConfig, now_ms: int) -> int:
    """Their largest timestamp is more than `retention.ms` ago."""
    retention_ms = config.retention_ms
    count = 0
    if retention_ms >= 0:
        while count < len(segments):
            segment = segments.loaded(count)
            if segment.size == 0 or now_ms - segment.max_timestamp_ms <= retention_ms:
                break
            count += 1
    return count


def _surplus(segments: Segments, config: TopicConfig) -> int:
    """Without them `retention.bytes` are still there."""
    retention_bytes = config.retention_bytes
    count = 0
    if retention_bytes >= 0:
        surplus = sum(segments.size_of(each) for each in segments) - retention_bytes
        while count < len(segments):
            size = segments.size_of(segments[count])
            if size == 0 or surplus - size < 0:
                break
            surplus -= size
            count += 1
    return count
