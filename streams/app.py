"""An app: the topics, the graph and the options of one program.

Declaring only adds to the graph; nothing is opened or created before the app runs. Running is one thread: this one, or
one beside an async block; the only async code of streams is here.
"""

import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, overload

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import current_token

from tailrace.log.arguments import check_int, check_text
from tailrace.log.client import Log
from tailrace.log.clock import Clock, SystemClock
from tailrace.log.errors import InvalidError
from tailrace.log.record import At, Instant, TopicPartition, instant_ms
from tailrace.log.topic import check_topic_name
from tailrace.state.restore import Progress
from tailrace.streams.chain.backed import Backing, check_backing
from tailrace.streams.program.global_table import GlobalTable
from tailrace.streams.program.graph import Graph
from tailrace.streams.program.io import Merge
from tailrace.streams.program.options import AppOptions
from tailrace.streams.program.store import DeclaredStore, Kind, Store
from tailrace.streams.program.topic import Topic, is_topic
from tailrace.streams.program.topology import Topology
from tailrace.streams.reprocessing.past import store_as_of
from tailrace.streams.reprocessing.replay import ReplayJob, replaying
from tailrace.streams.reprocessing.reset import ResetPlan, carry_out, plan_reset
from tailrace.streams.runner import Runner
from tailrace.streams.running.signals import stopping
from tailrace.streams.running.summary import Summary
from tailrace.streams.start import started
from tailrace.streams.surface.arguments import check_choice, check_window, not_negative_ms, positive_ms
from tailrace.streams.surface.flow import Flow, checked_store, merged, source
from tailrace.streams.surface.stream import Stream, table_of
from tailrace.streams.surface.table import Table
from tailrace.streams.values.codec import Codec
from tailrace.streams.values.place import check_function, user_place
from tailrace.windows.window import Window

K = TypeVar("K")
V = TypeVar("V")

# Told by identity from the same time, given by a program.
_COMMIT_INTERVAL = timedelta(milliseconds=200)
_CACHE_BYTES = 64 << 20
# More would be a mistake: each has a stack of its own.
_THREADS_MAX = 10_000


class _DefaultLog(str):
    """Told by identity from the same text, named by a program."""

    __slots__ = ()


_DEFAULT_LOG: str = _DefaultLog("tailrace-data")


class App:
    """A stream program: declare topics and streams, then `run()`.

    Several apps of one name, of the same program, that run on one open `Log` share its work: each runs a part of the
    tasks, with its own state, and tasks move when one comes or goes.

    Args:
        name: the app's identity: its consumer group and the beginning of its internal topics' names.
        log: a directory ("tailrace-data" unless given), "memory:" or another URL of `Log.open`, or an open `Log`, which
            stays open after the run.
        guarantee: "exactly_once": results, state and offsets are committed in one transaction, so whoever reads what is
            committed sees the effect of each record once, whatever happens to the app. "at_least_once": no transaction;
            after a crash, records since the last commit are worked on again, and their results may be there twice.
        commit_interval: how often state, results and offsets are made durable together; results are seen after it.
            Unless given: every 200 ms while there is more to read, else some 10 to 20 ms after a record came.
        state_dir: where stores are kept; beside the log unless given.
        version: above 1, another app as far as the log is concerned, named `<name>-v<version>`: its group, internal
            topics and state are its own, it begins where `reset` says, and writes to the same topics as the others.
            For a program whose state cannot go on from what the one before has kept, where nobody minds that results
            stand in the outputs once more. To compare the new results first, and to switch, take `replay`.
        cache_bytes: how much the caches of all stores may hold, about.
        on_bad_record: what becomes of a record that cannot be decoded: "fail" stops the app and names it, "skip" drops
            and counts it, "dead_letter" writes it to `<app>-dead-letters`.
        on_error: what becomes of a record for which a function of the program raises, or makes what cannot be encoded:
            "fail" stops the app and names it, "skip" drops it where that happened and counts it, "dead_letter" writes
            it to `<app>-dead-letters` too. What was done for it before stays.
        reset: where an input without a committed offset is read from.
        max_future: how far ahead of the clock, and of the time that the record was written with, an event time may be.
            A record that is further is one that cannot be read (`on_bad_record`), so that a single one dated tomorrow
            does not close the windows of all others. Without it any time is taken.
        max_skew: how far a partition may be read ahead, in event time, of the slowest one that has data, other apps'
            that share the work included: over a backlog it bounds how many windows are open at once, and changes no
            result. Unless given, a minute or the largest grace of the program, if that is more, in programs that
            repartition, and no bound in others, whose tasks do not meet. What does not move for 5 s is waited for no
            longer.
        threads: how many tasks run at the same time, each in a thread: for functions that wait for something outside
            (a request, a database). They share the interpreter's lock, so what computes gets no faster. Above 1, what
            is repartitioned goes through the log.

    Raises:
        InvalidError: the name cannot begin the names of topics.
        TypeError, ValueError: an option is wrong in itself.
    """

    def __init__(
        self,
        name: str,
        *,
        log: str | Log = _DEFAULT_LOG,
        guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once",
        commit_interval: timedelta = _COMMIT_INTERVAL,
        state_dir: str | None = None,
        version: int = 1,
        cache_bytes: int = _CACHE_BYTES,
        on_bad_record: Literal["fail", "skip", "dead_letter"] = "fail",
        on_error: Literal["fail", "skip", "dead_letter"] = "fail",
        reset: Literal["earliest", "latest"] = "earliest",
        max_future: timedelta | None = None,
        max_skew: timedelta | None = None,
        threads: int = 1,
    ) -> None:
        check_text("name", name, where="App")
        check_int("version", version, 1, where="App")
        name = name if version == 1 else f"{name}-v{version}"
        check_topic_name(name)
        if not isinstance(log, str | Log):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's argument
            raise TypeError(f"App(log={log!r}) is neither a URL nor a Log")
        check_choice("guarantee", guarantee, ("exactly_once", "at_least_once"))
        check_choice("on_bad_record", on_bad_record, ("fail", "skip", "dead_letter"))
        check_choice("on_error", on_error, ("fail", "skip", "dead_letter"))
        check_choice("reset", reset, ("earliest", "latest"))
        check_int("cache_bytes", cache_bytes, 0, where="App")
        check_int("threads", threads, 1, _THREADS_MAX, where="App")
        if state_dir is not None:
            check_text("state_dir", state_dir, where="App")
        if state_dir == "":
            raise ValueError("App(state_dir='') names no directory: give one, or leave it out")
        self.name = name
        self.graph = Graph()
        self.clock: Clock = SystemClock()
        self.on_restore: Callable[[str], Progress] | None = None
        """Makes a callback (offsets read, offsets in all) for each store that is restored at the start."""
        self.stopped_by: int | None = None
        """The signal that ended the last `run`."""
        self._runner: Runner | None = None
        self._free = threading.Lock()
        self._stop_asked = False
        self.options = AppOptions(
            name=name,
            log=log,
            log_named=log is not _DEFAULT_LOG,
            version=version,
            guarantee=guarantee,
            commit_interval_ms=positive_ms("commit_interval", commit_interval),
            commit_soon=commit_interval is _COMMIT_INTERVAL,
            state_dir=state_dir,
            cache_bytes=cache_bytes,
            on_bad_record=on_bad_record,
            on_error=on_error,
            reset=reset,
            max_future_ms=None if max_future is None else not_negative_ms("App(max_future=…)", max_future),
            max_skew_ms=None if max_skew is None else not_negative_ms("App(max_skew=…)", max_skew),
            threads=threads,
        )

    @overload
    def topic(
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        timestamp: Callable[[V], Instant] | None = None,
        partitions: int | None = None,
        compact: bool = False,
        config: Mapping[str, Any] | None = None,
        key_codec: Codec = None,
        codec: Codec = None,
    ) -> Topic[K, V]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        key: type[K],
        codec: Codec,
        timestamp: Callable[[Any], Instant] | None = None,
        partitions: int | None = None,
        compact: bool = False,
        config: Mapping[str, Any] | None = None,
        key_codec: Codec = None,
    ) -> Topic[K, Any]: ...
    def topic(
        self,
        name: str,
        *,
        key: Any,
        value: Any = Any,
        timestamp: Callable[[Any], Instant] | None = None,
        partitions: int | None = None,
        compact: bool = False,
        config: Mapping[str, Any] | None = None,
        key_codec: Codec = None,
        codec: Codec = None,
    ) -> Topic[Any, Any]:
        """Declares a topic; nothing is created yet.

        Args:
            name: as Kafka allows: up to 249 of ASCII letters, digits, `.`, `_`, `-`.
            key: the type of keys, which chooses their codec unless `key_codec` is given.
            value: the type of values, which chooses their codec unless `codec` is given.
            timestamp: value to event time (an aware datetime, or ms); the record's own timestamp unless given.
            partitions: how many an output topic is created with; as many as its input has unless given.
            compact: an output topic is created compacted: the last value of each key is kept.
            config: Kafka's names and values for its creation.
            key_codec: see `codec`.
            codec: "json", "msgpack", `json(type)`, `msgpack(type)` or an object with `encode` and `decode`.

        Raises:
            InvalidError: the name or the configuration is none of Kafka's.
            TypeError: a type has no codec, or `timestamp` is no plain function.
            ValueError: `partitions` below 1.
        """
        topic = Topic[Any, Any](
            name,
            key=key,
            value=value,
            place=user_place(),
            timestamp=timestamp,
            partitions=partitions,
            compact=compact,
            config=config,
            key_codec=key_codec,
            codec=codec,
        )
        self.graph.topics.append(topic)
        return topic

    def stream(self, topic: Topic[K, V] | Sequence[Topic[K, V]]) -> Stream[K, V]:
        """Reads a topic, or several of the same types, as a stream. They must exist when the app runs.

        Raises:
            TypeError: no topic.
            ValueError: an empty sequence.
        """
        topics = list(topic) if isinstance(topic, Sequence) and not isinstance(topic, str) else [topic]
        if not topics:
            raise ValueError("app.stream([]) reads nothing: give at least one topic")
        place = user_place()
        flows = [self._source(each, "app.stream") for each in dict.fromkeys(topics)]
        return Stream(merged(self.graph, "merge", flows, lambda name: Merge(name=name, place=place)))

    def table(
        self,
        topic: Topic[K, V],
        *,
        store: str,
        history: timedelta | None = None,
        changelog: Literal["own", "source"] = "own",
    ) -> Table[K, V]:
        """Reads a topic as a table: the latest value of each key, kept in a store. It must exist when the app runs.

        A null value deletes its key; a record with a null key is dropped and counted ("null_key").

        Args:
            topic: what is read.
            store: the name of the store.
            history: makes the table versioned: each value holds from its record's time until the next one's, whatever
                the order in which they come, and for so long (reckoned from the largest timestamp of the partition) a
                stream that is joined finds what was true at its records' time. A record older than that is dropped and
                counted ("late"); one that a newer one of its key precedes is passed on, and does not change the newest
                rows that joins of tables and groups are made of.
            changelog: "source" keeps no copy of the topic in the log: a store that is lost is restored from the topic,
                up to where it was read. For tables that are looked up: the topic must be compacted, its keys bytes, str
                or int, and nothing behind the table may need the value that a change replaces (groups and joins of
                tables do).

        Raises:
            TypeError: no topic, `store` is no name, or `history` no timedelta.
            ValueError: `history` is negative, or no whole number of milliseconds; `changelog` is neither, or "source"
                beside `history`, or for keys of another type.
        """
        name = checked_store(store, "app.table")
        check_choice("changelog", changelog, ("own", "source"), "app.table")
        history_ms = None if history is None else not_negative_ms("app.table(history=…)", history)
        flow = self._source(topic, "app.table")
        if changelog == "own":
            return table_of(flow, name, user_place(), history_ms)
        check_backing(topic, history_ms)
        return table_of(flow, name, user_place(), source=Backing(topic, self.options.max_future_ms))

    def global_table(self, topic: Topic[K, V], *, store: str) -> GlobalTable[K, V]:
        """Reads a topic whole, in every process, so that streams can look up any of its keys. It must exist.

        All of it is read before anything runs, and what comes later as it comes: a stream that is joined finds the
        latest value that the process has read, whatever its time. It is kept in memory, and read anew at each start.
        A null value deletes its key; records with a null key are left out. One that cannot be read ends the app, or is
        left out where `on_bad_record` says so; a warning tells of the first.

        Raises:
            TypeError: no topic, or `store` is no name.
        """
        name = checked_store(store, "app.global_table")
        if not is_topic(topic):
            raise TypeError(f"app.global_table takes a topic, as app.topic() returns it, not {topic!r}")
        self.graph.topics.append(topic)
        table = GlobalTable(name, topic, user_place())
        self.graph.global_tables.append(table)
        return table

    def store(
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        kind: Kind = "rocksdb",
        window: Window | None = None,
        history: timedelta | None = None,
        ttl: timedelta | None = None,
        default: Callable[[], V] | None = None,
    ) -> Store[K, V]:
        """Declares a store, for processors; kept for each task, and backed by `<app>-<name>-changelog`.

        Args:
            name: no other store of the app has it.
            key: the type of keys.
            value: the type of values; a mutable one is made into bytes at every commit after it was put.
            kind: "rocksdb" keeps it on disk; "memory" in memory, restored from the changelog at every start.
            window: makes it one of windows, which are let go of when no record that is not late can need them. `put`
                and `get` take `Windowed(key, start_ms, end_ms)`; of tumbling and unlimited windows a key alone means
                the window of the record's time. `fetch` finds the windows of a key in a time.
            history: keeps what a key was for so long; `as_of` finds it. A put that is older is refused.
            ttl: how long after the time of its put, by stream time, a value is there.
            default: makes what `get` gives for a key that is missing; it is not put by that.

        Raises:
            TypeError: a type has no codec, or `default` is no plain function.
            ValueError: `kind` is neither; more than one of `window`, `history` and `ttl`; a time below 0, a `ttl` of 0.
        """
        checked_store(name, "app.store")
        if kind not in ("rocksdb", "memory"):
            raise ValueError(f'app.store(kind={kind!r}) is neither "rocksdb" nor "memory"')
        if default is not None:
            check_function(default, f"app.store({name!r}, default=…)")
        if sum(given is not None for given in (window, history, ttl)) > 1:
            raise ValueError(f"app.store({name!r}) takes one of window=, history= and ttl=")
        check_window(window, name)
        store = DeclaredStore[K, V](
            name,
            key=key,
            value=value,
            kind=kind,
            default=default,
            place=user_place(),
            window=window,
            history_ms=None if history is None else not_negative_ms("app.store(history=…)", history),
            ttl_ms=None if ttl is None else positive_ms("ttl", ttl, "app.store"),
        )
        self.graph.stores.append(store)
        return store

    def run(self, *, until: Literal["end"] | None = None) -> Summary:
        """Runs the app in this thread, until it is stopped; returns when everything is committed.

        SIGINT and SIGTERM stop it cleanly where this is the main thread: the work at hand is finished and committed.

        Args:
            until: "end" stops when every input was read to where it ended at the start, for backfills, notebooks and
                tests; where other apps of its name share the work, when they have read their part, too. Windows that
                are open then stay open; a later run goes on with them.

        Raises:
            TopologyError: the program cannot run on this log; the user's file and line are named.
            TaskError: a function of the user raised and on_error is "fail"; node, line and record are named, the cause
                is chained.
            DecodeError: a record cannot be read and on_bad_record is "fail".
            InvalidError: this App runs already, or another of its name that is another program.
        """
        if until not in (None, "end"):
            raise ValueError(f'run(until={until!r}): "end" or nothing')
        topology = self.describe()
        with (
            self._once(),
            started(topology, self.options, self.clock, self.on_restore) as runner,
            stopping(runner.stop) as signals,
        ):
            try:
                with self._at_work(runner):
                    return runner.run(until_end=until == "end")
            finally:
                self.stopped_by = signals[0] if signals else None

    def reset(
        self,
        *,
        to: At | timedelta | Mapping[TopicPartition, int] = "earliest",
        dry_run: bool = True,
    ) -> ResetPlan:
        """Takes the app back (or on) to a place in its inputs, with nothing of what it had made of them since.

        The offsets of its group move, and its state goes: changelogs, repartition topics, and the stores on disk. Its
        inputs and outputs stay; what is read again is written again behind what is there. What the app both writes and
        reads goes on at its end.

        Args:
            to: "earliest", "latest", an instant (the first record at or after it), a timedelta (so long before now), or
                an offset for each partition that is to move; the others go on where they are.
            dry_run: only tells what would be done. It needs no lock: another process may write the log meanwhile.

        Raises:
            InvalidError: the app runs (its members are named), or an offset is not there.
            LogLockedError: another process writes the log, or uses the app's state.
            TopologyError: an input is missing.
            TypeError, ValueError: `to` is none of these.
        """
        topology, own = self.describe(), self.options.log
        with ExitStack() as stack:
            log = own if isinstance(own, Log) else stack.enter_context(Log.open(own, read_only=dry_run))
            plan = plan_reset(topology, self.options, log, to, self.clock.now_ms())
            return plan if dry_run else carry_out(plan, self.options, log)

    def replay(
        self,
        *,
        since: Instant | None = None,
        until: Instant | Literal["end"] = "end",
        into: str,
        share: float = 0.5,
    ) -> AbstractContextManager[ReplayJob]:
        """The program over input that is there already, beside the app that runs, into outputs and state of its own.

        The job is an app of its own, `<app>.<into>`, and writes to `<topic>.<into>` in place of each `<topic>`; what
        runs under the app's own name goes on undisturbed. `job.run()` works through the input; stopped or killed, the
        same words go on where it was. `job.diff(topic)` compares what came of it.

        Functions of the program with effects outside the log (`for_each`, a request) have them again.

        Args:
            since: input from this instant on; from the beginning unless given. Windows that began before it lack what
                came earlier. What is read as a table is read from its beginning.
            until: input before this instant; "end": all that there is when `run` is called.
            into: the name of the version: letters, digits, `_`, `-`.
            share: the part of the time that the job works, at most, while apps run on the same open log: these go
                first. Alone it works all the time.

        Raises:
            ValueError, TypeError: `until` before `since`, a name or share that cannot be.
            InvalidError: such a job is at work in this process. From `job.run()`: it was begun with other words, its
                names are taken, or input that it is to read was deleted.
        """
        return replaying(
            self.describe(),
            self.options,
            self.clock,
            self.on_restore,
            since=since,
            until=until,
            into=into,
            share=share,
        )

    def past(self, store: str, when: Instant) -> Store[Any, Any]:
        """A store as it was at an instant, to read: from its changelog, into memory. Nothing is changed.

        It is what the store held after the last commit before the first that put anything younger; a replay up to
        there (`replay(until=when)`) is exact. Changelogs are compacted by and by: where only younger values of a key
        are left it is missing, and a warning tells how many there are.

        Raises:
            InvalidError: the program has no such store, or one that cannot be read from outside.
            TopologyError: it has no changelog yet.
            ValueError, TypeError: no instant.
        """
        when_ms, topology, own = instant_ms(when), self.describe(), self.options.log
        with ExitStack() as stack:
            log = own if isinstance(own, Log) else stack.enter_context(Log.open(own, read_only=True))
            return store_as_of(topology, self.name, log, self.clock, store, when_ms).store

    def running(self) -> AbstractAsyncContextManager[Self]:
        """Runs the app in a thread beside the block, which begins when every store is restored that is its own by then.

        Leaving the block stops the app cleanly. What ends the app before that cancels the block, and is raised when it
        is left, as from `run`.
        """
        return self._running()

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[Self]:
        topology = self.describe()
        token, ready, scope = current_token(), anyio.Event(), anyio.CancelScope()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                with started(topology, self.options, self.clock, self.on_restore) as runner, self._at_work(runner):
                    anyio.from_thread.run_sync(ready.set, token=token)
                    runner.run(until_end=False)
            except BaseException as error:  # noqa: BLE001 - raised again where the block is left
                failure.append(error)
                anyio.from_thread.run_sync(scope.cancel, token=token)

        with self._once(), scope:
            thread = threading.Thread(target=run, name=f"tailrace-{self.name}")
            thread.start()
            try:
                await ready.wait()
                yield self
            finally:
                self.stop()
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(thread.join)
        if failure:
            raise failure[0]

    def stop(self) -> None:
        """Asks a running app to finish the work at hand, commit and end; may be called from any thread.

        One that is still restoring its stores ends when it has done so.
        """
        self._stop_asked = True
        runner = self._runner
        if runner is not None:
            runner.stop()

    def summary(self) -> Summary | None:
        """What the running app has done so far; None while it does not run."""
        runner = self._runner
        return runner.summary() if runner is not None else None

    @contextmanager
    def _once(self) -> Generator[None]:
        if not self._free.acquire(blocking=False):
            raise InvalidError(
                f"this App({self.name!r}) runs already: where several are to share the work, make one App for each"
            )
        try:
            self._stop_asked = False
            yield
        finally:
            self._free.release()

    @contextmanager
    def _at_work(self, runner: Runner) -> Generator[None]:
        self._runner = runner
        # Looked at after the runner can be seen: a stop before that found nobody to tell.
        if self._stop_asked:
            runner.stop()
        try:
            yield
        finally:
            self._runner = None

    def _source(self, topic: object, where: str) -> Flow:
        if not is_topic(topic):
            takes = (
                "topics, as app.topic() returns them" if where == "app.stream" else "a topic, as app.topic() returns it"
            )
            raise TypeError(f"{where} takes {takes}, not {topic!r}")
        return source(self.graph, topic)

    def describe(self) -> Topology:
        """The program as a graph, checked: `str()`, `.json()`, `.mermaid()`.

        Raises:
            TopologyError: what the parts are together cannot run; every place concerned is named by file and line.
        """
        return self.graph.topology(self.name)
