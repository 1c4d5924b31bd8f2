"""Stream processing for Python on a log of its own."""

from tailrace import starting  # noqa: F401  # pyright: ignore[reportUnusedImport]  # first: Ctrl-C while the command starts
from tailrace.log.client import Consumer, Delivery, GroupDescription, Log, Producer, TopicDescription
from tailrace.log.record import At, Headers, Instant, Offsets, Record, RecordMetadata, TopicPartition
from tailrace.streams.app import App
from tailrace.streams.operators.aggregate import Emit
from tailrace.streams.operators.suppress import Suppress, until_stream_time, until_window_closes
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.reducers import Reducer
from tailrace.streams.program.store import Store
from tailrace.streams.program.topic import Named, Topic
from tailrace.streams.program.topology import Topology
from tailrace.streams.reprocessing.difference import Difference
from tailrace.streams.reprocessing.replay import ReplayJob
from tailrace.streams.reprocessing.reset import ResetPlan
from tailrace.streams.running.summary import Summary
from tailrace.streams.surface.cogrouped import Cogrouped, WindowedCogrouped
from tailrace.streams.surface.grouped import Grouped, WindowedGrouped
from tailrace.streams.surface.grouped_table import GroupedTable
from tailrace.streams.surface.stream import Stream
from tailrace.streams.surface.table import Table
from tailrace.streams.values.codec import Codec, json, msgpack, windowed
from tailrace.windows.duration import days, hours, milliseconds, minutes, seconds
from tailrace.windows.hopping import hopping
from tailrace.windows.session import session
from tailrace.windows.sliding import sliding
from tailrace.windows.tumbling import tumbling
from tailrace.windows.unlimited import unlimited
from tailrace.windows.window import Window
from tailrace.windows.windowed import Windowed

__all__ = [
    "App",
    "At",
    "Codec",
    "Cogrouped",
    "Consumer",
    "Context",
    "Delivery",
    "Difference",
    "Emit",
    "GlobalTable",
    "GroupDescription",
    "Grouped",
    "GroupedTable",
    "Headers",
    "Instant",
    "Log",
    "Named",
    "Offsets",
    "Processor",
    "Producer",
    "Record",
    "RecordMetadata",
    "Reducer",
    "ReplayJob",
    "ResetPlan",
    "Store",
    "Stream",
    "Summary",
    "Suppress",
    "Table",
    "Topic",
    "TopicDescription",
    "TopicPartition",
    "Topology",
    "Window",
    "Windowed",
    "WindowedCogrouped",
    "WindowedGrouped",
    "days",
    "hopping",
    "hours",
    "json",
    "milliseconds",
    "minutes",
    "msgpack",
    "seconds",
    "session",
    "sliding",
    "tumbling",
    "unlimited",
    "until_stream_time",
    "until_window_closes",
    "windowed",
]
