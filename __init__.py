"""Stream processing for Python on a log of its own."""

from tailrace.log.client import Consumer, Delivery, GroupDescription, Log, Producer, TopicDescription
from tailrace.log.record import At, Headers, Instant, Offsets, Record, RecordMetadata, TopicPartition
from tailrace.windows.duration import days, hours, milliseconds, minutes, seconds
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

__all__ = [
    "At",
    "Consumer",
    "Delivery",
    "GroupDescription",
    "Headers",
    "Instant",
    "Log",
    "Offsets",
    "Producer",
    "Record",
    "RecordMetadata",
    "TopicDescription",
    "TopicPartition",
    "Window",
    "Windowed",
    "days",
    "hopping",
    "hours",
    "milliseconds",
    "minutes",
    "seconds",
    "session",
    "sliding",
    "tumbling",
    "unlimited",
]
