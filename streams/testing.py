"""Drives an app by hand, for tests: a record in, its results out, without threads and without a disk.

The same planner, tasks, runner and commit as in production, over a log in memory; what is written to it is kept beside
it in the order in which it was made. Between two calls the app is one that has read all there is.

1. When `pipe` returns, the record has run through every sub-topology: through repartitions, and through topics that the
   app both writes and reads. Where a function chooses a topic that brought the record, that is a loop, which must end:
   one that goes on for 1,000 rounds, or has made 100,000 records, is an error.
2. Nothing is committed but by `commit`. With the cache on, results of stateful nodes wait for it.
3. With one partition, windows close as in Kafka Streams' TopologyTestDriver: by the largest timestamp seen. With more,
   records that are piped at one moment of the wall clock stand for a backlog of all partitions: behind a repartition
   time goes on with the slowest of them, until `advance_wall_clock` says that nothing more came. So nothing closes
   sooner than it would over that backlog.
4. After an error of the app it has ended, as in production; what had come out before can still be read.

Not here: what a record does (operators), how a store is read (query).
"""

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from tailrace.log.client import Log
from tailrace.log.clock import ManualClock
from tailrace.log.errors import InvalidError, TopicNotFoundError, TopologyError
from tailrace.log.partitioner import partition_of
from tailrace.log.record import Headers, Record, TopicPartition
from tailrace.log.topic import INT64_MAX, near_names
from tailrace.state.memory import MemoryBackend
from tailrace.streams.app import App
from tailrace.streams.chain.global_rows import GlobalView
from tailrace.streams.keeping import KeepingProducer, Raw
from tailrace.streams.planning.planner import Planner
from tailrace.streams.planning.query import view_of, windows_of
from tailrace.streams.program.io import Sink
from tailrace.streams.program.store import Store
from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.runner import Runner
from tailrace.streams.values.codec import TypeCodec, decode_error, encode_error, windowed_form
from tailrace.windows.duration import to_ms

K = TypeVar("K")
V = TypeVar("V")
_CACHE_BYTES = 64 << 20
_CACHE_ENTRIES = 100_000
# When records that come back to a topic of theirs are taken to do so for ever: far above what a program that counts
# its attempts needs, and soon reached.
_ROUNDS_MAX = 1_000
_MADE_MAX = 100_000


class TopologyDriver(AbstractContextManager["TopologyDriver"]):
    """Runs an app record by record; see the module's docstring for what time does with several partitions.

    The app's own log, state directory and commit interval are not used. Every topic that the app declares is there.

    Args:
        app: it need not be told; each driver begins anew.
        cache: whether updates of a key are merged until `commit`; off, every update is sent on at once.
        partitions: of every topic, whatever its declaration says.
        wall_clock_ms: where the wall clock stands in the beginning, in ms since the epoch.

    Raises:
        TopologyError: the program cannot be built.
        ValueError: `partitions` below 1, `wall_clock_ms` below 0.
    """

    def __init__(self, app: App, *, cache: bool = False, partitions: int = 1, wall_clock_ms: int = 0) -> None:
        if partitions < 1:
            raise ValueError(f"TopologyDriver(partitions={partitions}) is below 1")
        if wall_clock_ms < 0:
            raise ValueError(f"TopologyDriver(wall_clock_ms={wall_clock_ms}) is before 1970")
        self._app = app.name
        self._topology = app.describe()
        self._topics: dict[str, Topic[Any, Any]] = {topic.name: topic for topic in app.graph.topics}
        self._partitions = partitions
        self._clock = ManualClock(wall_clock_ms)
        self._ended: str | None = None
        with ExitStack() as stack:
            log = stack.enter_context(Log.open("memory:", background=False, clock=self._clock))
            for topic in self._topics.values():
                # The wall clock may stand at 0: no timestamp is in the future.
                config = {"message.timestamp.after.max.ms": INT64_MAX, **topic.config}
                if topic.name in self._topology.backing:
                    config["cleanup.policy"] = "compact"
                log.create_topic(topic.name, partitions=partitions, config=config, exist_ok=True)
            self._producer = stack.enter_context(log.producer(linger_ms=0))
            self._written = KeepingProducer(self._producer)
            # Without transactions: what came out is read before the commit.
            cache_bytes = _CACHE_BYTES if cache else 0
            options = replace(app.options, log=log, cache_bytes=cache_bytes, guarantee="at_least_once")
            planner = Planner(self._topology, log, options, lambda _task: MemoryBackend(), self._clock)
            self._plan = planner.plan(self._written)
            stack.push(self._plan.stop)
            cache_entries = _CACHE_ENTRIES if cache else 0
            self._runner = Runner(self._plan, log, self._clock, commit_interval_ms=1, cache_entries=cache_entries)
            stack.enter_context(self._runner.reading())
            self._known = log.topics(internal=True)
            sinks = [node.operator for node in self._topology.nodes if isinstance(node.operator, Sink)]
            self._choosing = any(sink.topic is None for sink in sinks)
            self._open = stack.pop_all()
        self._inputs = {source.partition for task in self._plan.tasks for source in task.inputs}
        for partition in self._inputs:
            self._expect(partition)

    def pipe(
        self,
        topic: Topic[K, V] | str,
        value: V | None,
        *,
        key: K | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Sends a record into an input topic and runs it through the app.

        Args:
            topic: one that the app reads. A `Topic` encodes with its own codecs, a name with those declared for it; one
                of another app with `value=bytes` sends bytes that cannot be read.
            value: None is a null value.
            key: None is a null key.
            timestamp_ms: the wall clock's time unless given; a topic with `timestamp=` takes it from the value.
            headers: pairs of name and bytes.
            partition: the key's own (murmur2) unless given; 0 for a null key.

        Raises:
            InvalidError: the app does not read that topic, the log refuses the record, the driver is closed or the app
                has ended.
            EncodeError: key or value do not fit the topic's types.
            TaskError: a function of the user raised.
            TopologyError: records go round for ever, through a topic that `to(function)` chooses again and again.
            DecodeError: the record cannot be read and `on_bad_record` is "fail".
        """
        self._refuse_ended()
        given = self._input(topic)
        key_bytes = None if key is None else _encoded(given.key_codec, key, f"the key for topic {given.name!r}")
        data = None if value is None else _encoded(given.value_codec, value, f"the value for topic {given.name!r}")
        if partition is None:
            partition = 0 if key is None else partition_of(_key_in_log(given.key_codec, key), self._partitions)
        self._producer.send(
            given.name, data, key=key_bytes, timestamp_ms=timestamp_ms, headers=headers, partition=partition
        ).result()
        self._expect(TopicPartition(given.name, partition))
        self._settle()

    def read(self, topic: Topic[K, V] | str) -> list[Record[Any, Any]]:
        """What came out to a topic since it was read last, in the order in which it was made; flushes nothing.

        A `Topic` decodes with its own codecs, a name with those declared for it; a topic that the app does not declare,
        as that of the dead letters, has bytes. Windowed keys of several partitions come partition after partition
        within one `pipe` or `commit`.

        Raises:
            TopicNotFoundError: there is no such topic.
            DecodeError: what was written does not fit the topic's types.
        """
        declared = self._topics.get(topic) if isinstance(topic, str) else topic
        name = topic if isinstance(topic, str) else topic.name
        rows = self._written.take(name)
        # A function that chooses topics may yet write to any.
        if not rows and name not in self._known and not self._choosing:
            raise TopicNotFoundError(f"app {self._app!r} has no topic {name!r}{near_names(name, self._known)}")
        if declared is None:
            return list[Record[Any, Any]](rows)
        key_codec, value_codec = self._codecs_of(declared)
        return [_decoded(row, key_codec, value_codec) for row in rows]

    def commit(self) -> None:
        """Commits: sends on what the caches hold back, lets go of expired results. Raises as `pipe`."""
        self._refuse_ended()
        try:
            self._runner.commit()
            if self._feed():
                self._run()
        except Exception as error:
            self._end(error)
            raise

    def advance_wall_clock(self, by: timedelta) -> None:
        """Lets time pass in which nothing comes in.

        Event time stands still, but for windows with `idle_after=`; with several partitions, see the module.

        What processors have scheduled on the wall clock is called when it has gone on, once for each that is due.

        Raises:
            ValueError: `by` is negative or no whole number of milliseconds.
        """
        self._refuse_ended()
        self._clock.advance(to_ms(by, "by"))
        self._runner.expect_nothing()
        self._settle()

    def store(self, name: str) -> Store[Any, Any]:
        """A store, to read: the newest state of all partitions, committed or not.

        Raises:
            InvalidError: the app has no store of that name.
        """
        stores = {store.node.name: store for task in self._plan.tasks for store in task.stores}
        if name in self._plan.global_rows:
            return GlobalView(self._plan.global_rows[name])
        if name not in stores:
            raise InvalidError(f"app {self._app!r} has no store {name!r}{near_names(name, stores)}")
        parts = [store.node.store for task in self._plan.tasks for store in task.stores if store.node.name == name]
        return view_of(name, parts, windows_of(self._topology).get(name))

    @property
    def dropped(self) -> Mapping[str, int]:
        """Records that went no further, by reason: see `Summary.dropped`."""
        return self._runner.summary().dropped

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes without a commit; what came out can still be read."""
        self._ended = self._ended or "this driver is closed"
        self._open.__exit__(kind, error, trace)

    # ------------------------------------------------------------ running

    def _settle(self) -> None:
        try:
            self._run()
        except Exception as error:
            self._end(error)
            raise

    def _run(self) -> None:
        """Runs until nothing is left to run, and hands the results over."""
        rounds, made = 0, 0
        while True:
            self._runner.run_waiting()
            for outputs in self._plan.outputs:
                outputs.send()
            rounds += 1
            fed = self._feed()
            if not fed:
                return
            made += fed.total()
            # With more rounds than topics, some topic has what it brought itself: only then can there be no end.
            if rounds > len({partition.topic for partition in self._inputs}) and (
                rounds >= _ROUNDS_MAX or made > _MADE_MAX
            ):
                raise self._circle({partition.topic for partition in fed}, rounds)

    def _feed(self) -> Counter[TopicPartition]:
        """How many records were written since the last time to partitions that the app also reads."""
        written = self._written.take_counts()
        fed = Counter({partition: count for partition, count in written.items() if partition in self._inputs})
        for partition in fed:
            self._expect(partition)
        return fed

    def _circle(self, fed: Collection[str], rounds: int) -> TopologyError:
        sinks = [node.operator for node in self._topology.nodes if isinstance(node.operator, Sink)]
        places = ", ".join(str(sink.place) for sink in sinks if sink.topic is None)
        return TopologyError(
            f"records go round and round through topic {', '.join(map(repr, sorted(fed)))}, which app {self._app!r} "
            f"reads and the function of to() at {places} chooses again: no end after {rounds} rounds; have it choose "
            "another topic at last"
        )

    def _expect(self, partition: TopicPartition) -> None:
        if self._partitions > 1:
            self._runner.expect(partition)

    def _end(self, error: Exception) -> None:
        self._ended = f"app {self._app!r} has ended with {type(error).__name__}: {error}; begin with another driver"

    def _refuse_ended(self) -> None:
        if self._ended is not None:
            raise InvalidError(self._ended)

    # ------------------------------------------------------------ topics

    def _input(self, topic: object) -> Topic[Any, Any]:
        name = topic if isinstance(topic, str) else topic.name if is_topic(topic) else None
        if name is None:
            raise TypeError(f"pipe takes a topic, or the name of one, not {topic!r}")
        inputs = {partition.topic for partition in self._inputs}
        inputs |= {table.topic.name for table in self._topology.global_tables}
        if name not in inputs:
            raise InvalidError(f"app {self._app!r} does not read topic {name!r}{near_names(name, inputs)}")
        return topic if is_topic(topic) else self._topics[name]

    def _codecs_of(self, topic: Topic[Any, Any]) -> tuple[TypeCodec, TypeCodec]:
        """The topic's codecs; windowed keys whose window it does not say have that of what is written to it."""
        form = windowed_form(topic.key_codec)
        if form is not None and form.window is None:
            for node in self._topology.nodes:
                sink = node.operator
                if isinstance(sink, Sink) and (sink.topic is None or sink.topic.name == topic.name):
                    key, _ = sink.codecs(topic)
                    if key is not topic.key_codec:
                        return key, topic.value_codec
        return topic.key_codec, topic.value_codec


def _encoded(codec: TypeCodec, value: object, what: str) -> bytes:
    try:
        return codec.encode(value)
    except Exception as error:
        raise encode_error(what, codec, value, error) from error


def _key_in_log(codec: TypeCodec, key: Any) -> bytes:
    """The bytes that choose a key's partition: of a windowed key, those of the key inside."""
    form = windowed_form(codec)
    return codec.partition_bytes(key) if form is None else form.inner.partition_bytes(key.key)


def _decoded(row: Raw, key_codec: TypeCodec, value_codec: TypeCodec) -> Record[Any, Any]:
    where = f"{row.topic}-{row.partition}@{row.offset}"
    return Record(
        row.topic,
        row.partition,
        row.offset,
        row.timestamp_ms,
        None if row.key is None else _value_of(key_codec, row.key, f"the key of {where}"),
        None if row.value is None else _value_of(value_codec, row.value, f"the value of {where}"),
        row.headers,
    )


def _value_of(codec: TypeCodec, data: bytes, what: str) -> Any:
    try:
        return codec.decode(data)
    except Exception as error:
        raise decode_error(what, codec, error) from error
