"""A processor at work in one task: its records, its scheduled calls, its stores.

1. A record's time, headers and origin go with whatever is forwarded for it, unless the processor says otherwise.
2. A scheduled call has no record. Its output is late where the windows behind it have closed, and nowhere else: its
   origin is the stream time that reaches the node.
3. Every processor that shares a store sees what any of them put, at once. A store is flushed after everything else in
   its task, because what others flush may reach a processor.
4. What runs a processor has it as `self` in its frame: by that an error finds the node (failure).
5. What goes wrong behind a `forward` ends the task, also where the processor catches it: what stands behind has taken
   a part of the record, and only the last commit is whole. Where the app goes on after errors (on_error) the processor
   is not told of it.

Not here: when scheduled functions are due (schedule), when wall clocks are looked at (runner).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal

from tailrace.log.clock import Clock
from tailrace.log.errors import InvalidError, TopologyError
from tailrace.log.record import Headers, Record
from tailrace.log.topic import near_names
from tailrace.streams.chain.context import TaskContext, WithHeaders
from tailrace.streams.chain.schedule import Schedule
from tailrace.streams.operators.own_stores import OwnStore, processor_store
from tailrace.streams.operators.process import Process, check_methods, is_processor
from tailrace.streams.program.processor import Context, Processor
from tailrace.streams.program.results import look_at_effect
from tailrace.streams.program.topology import Forward
from tailrace.streams.values.derived import key_check
from tailrace.streams.values.place import check_function
from tailrace.windows.duration import format_ms, to_ms


class RunningProcessor(Context[Any, Any]):
    """One processor of one task: the link of the chain, and the context that the processor is given."""

    def __init__(
        self,
        context: TaskContext,
        operator: Process,
        forward: Forward,
        stores: Mapping[str, OwnStore],
        clock: Clock,
    ) -> None:
        self.record: Record[Any, Any] | None = None
        self.operator = operator
        self.lag_ms = 0
        """By how much what reaches the node may lag behind the task's stream time."""
        self.time_ms: int | None = None
        """The time of what is put and forwarded; None while nothing may be put."""
        self._sending = False
        self._made_in_process = False
        self._failed: BaseException | None = None
        self._trace: TracebackType | None = None
        """What went wrong behind a `forward`, whether or not the processor let it pass."""
        self._context = context
        self._forward = forward
        self._clock = clock
        self._plain_key, self._check_key = key_check(operator.key, operator.place)
        self._stores = {name: processor_store(store, self) for name, store in stores.items()}
        self._processor: Processor[Any, Any, Any, Any] | None = None

    @property
    def _where(self) -> str:
        return f"{self.operator.name} at {self.operator.place}"

    # ------------------------------------------------------------ its life

    def start(self, task: str, made: dict[int, str]) -> None:
        """Makes the processor of a task, and has it initialised; `made` has the tasks of those made before, by id.

        Raises:
            TopologyError: the factory made no processor that can be run, or one that it had made before.
        """
        processor = self.operator.factory()
        self._check(processor, task, made)
        self.time_ms = max(self.stream_time_ms, 0)
        processor.init(self)
        self.time_ms = None
        self._processor = processor

    def _check(self, processor: object, task: str, made: dict[int, str]) -> None:
        if not is_processor(processor):
            raise TopologyError(f"the factory of {self._where} returned {processor!r}: subclass tailrace.Processor")
        known = made.setdefault(id(processor), f"{self._where} in task {task}")
        if known != f"{self._where} in task {task}":
            raise TopologyError(
                f"the factory of {self._where} returned the same object twice, {processor!r}, for task {task} and "
                f"before for {known}: every task needs one of its own, so make a new one at every call"
            )
        try:
            check_methods(processor, self._where)
        except TypeError as error:
            raise TopologyError(str(error)) from error

    def stop(self, made: dict[int, str]) -> None:
        """Ends the processor, where it was made; `made`: see `start`."""
        processor, self._processor = self._processor, None
        if processor is not None:
            made.pop(id(processor), None)
            processor.close()

    def link(self) -> Forward:
        """The function that takes the node's records."""
        context = self._context

        def process(key: Any, value: Any, timestamp_ms: int) -> None:
            raw, source = context.record, context.source
            if raw is None or raw.offset < 0 or source is None:
                headers = () if raw is None else raw.headers
                record = Record("", context.partition, -1, timestamp_ms, key, value, headers)
            else:
                topic, partition = source
                record = Record(topic, partition, raw.offset, timestamp_ms, key, value, raw.headers)
            self.record, self.time_ms, self._sending = record, timestamp_ms, True
            assert self._processor is not None
            try:
                result: Any = self._processor.process(record)
                if result is not None:
                    look_at_effect(result)
            except Exception:
                if context.goes_on:
                    self._raise_again()  # a policy that takes what the processor made of it would forget it
                raise
            finally:
                self.record, self.time_ms, self._sending = None, None, False
            if self._failed is not None:
                self._raise_again()
            if self._made_in_process:
                self._made_in_process = False
                if context.stream_calls.next_ms <= context.stream_time_ms:
                    context.stream_calls.run(context.stream_time_ms)

        return process

    def _raise_again(self) -> None:
        """What has failed behind `forward` and no policy has taken: whatever the processor makes of it."""
        if self._failed is not None:
            raise self._failed.with_traceback(self._trace)

    # ------------------------------------------------------------ what the processor is given

    @property
    def stream_time_ms(self) -> int:
        """See `Context`."""
        return self._context.stream_time_ms

    def forward(self, key: Any, value: Any, *, timestamp_ms: int | None = None, headers: Headers | None = None) -> None:
        """See `Context`."""
        if not self._sending:
            raise RuntimeError("forward is for process() and scheduled functions: nothing else can send")
        if self._failed is not None:
            self._raise_again()
        if self.operator.keeps_key:
            self._check_kept(key)
        elif key.__class__ is not self._plain_key and self._plain_key is not None:
            key = self._check_key(key)
        if timestamp_ms is None:
            timestamp_ms = self.time_ms
            assert timestamp_ms is not None
        else:
            _check_time(timestamp_ms)
        context = self._context
        record, origin_ms, old = context.record, context.origin_ms, context.old
        if headers is not None:
            context.record = WithHeaders(record, _checked_headers(headers))
        try:
            self._forward(key, value, timestamp_ms)
        except BaseException as error:
            # Nobody knows how far what stands behind had come: a processor that goes on ends the task all the same.
            self._failed, self._trace = error, error.__traceback__
            if not isinstance(error, Exception):
                raise
            context.failed(error, (key, value, timestamp_ms))
            self._failed = None
        finally:
            context.record, context.origin_ms, context.old = record, origin_ms, old

    def store(self, name: str) -> Any:
        """See `Context`."""
        store = self._stores.get(name)
        if store is None:
            raise InvalidError(
                f"{self._where} was given no store {name!r}{near_names(name, self._stores)}: name it in stores=[…]"
            )
        return store

    def schedule(
        self, every: timedelta, f: Callable[[int], None], *, clock: Literal["stream", "wall"]
    ) -> Callable[[], None]:
        """See `Context`."""
        every_ms = to_ms(every, "every")
        if every_ms <= 0:
            raise ValueError(f"schedule(every={format_ms(every_ms)}) is not above 0")
        if clock not in {"stream", "wall"}:
            raise ValueError(f'schedule(clock={clock!r}) is neither "stream" nor "wall"')
        check_function(f, "schedule")
        context = self._context
        if clock == "wall":
            schedule = Schedule(self._scheduled(f, clock), every_ms, self._clock.now_ms() + every_ms)
            context.wall_calls.add(schedule)
            return schedule.cancel
        now_ms = context.stream_time_ms
        due_ms = (now_ms // every_ms + 1) * every_ms
        if self.record is not None:
            # Kafka's way: a schedule that a record brings about is called for the first time after that record.
            due_ms, self._made_in_process = 0, True
        schedule = Schedule(self._scheduled(f, clock), every_ms, due_ms)
        context.stream_calls.add(schedule)
        return schedule.cancel

    def _scheduled(self, f: Callable[[int], None], clock: str) -> Callable[[int], None]:
        context = self._context
        given: Callable[[int], object] = f

        def call(now_ms: int) -> None:
            record, origin_ms, doing, cause = context.record, context.origin_ms, context.doing, context.cause
            context.record, context.cause, context.doing = (
                None,
                None,
                f"a call scheduled on the {clock} clock, at {now_ms} ms",
            )
            context.origin_ms = context.stream_time_ms - self.lag_ms
            self.time_ms, self._sending = max(now_ms, 0), True
            try:
                result = given(now_ms)
                if result is not None:
                    look_at_effect(result)
            except Exception as error:  # noqa: BLE001 - raised again where the policy says so
                if context.goes_on:
                    self._raise_again()
                context.failed(error)
            finally:
                self.time_ms, self._sending = None, False
            self._raise_again()
            context.record, context.origin_ms, context.doing, context.cause = record, origin_ms, doing, cause

        return call

    def _check_kept(self, key: object) -> None:
        if self.record is None:
            raise ValueError(
                "process_values forwards nothing in a scheduled call, where there is no record whose key it could "
                "keep: use process"
            )
        kept: object = self.record.key
        if key is not kept and (key.__class__ is not kept.__class__ or key != kept):
            raise ValueError(
                f"process_values keeps the key {kept!r}, and forward was given {key!r}: use process to change it"
            )


def _checked_headers(headers: Sequence[Any]) -> Headers:
    pairs: list[tuple[str, bytes | None]] = []
    for pair in headers:
        name, value = pair
        if not isinstance(name, str) or not (value is None or isinstance(value, bytes)):
            raise TypeError(f"forward was given the header {pair!r}: a pair of str and bytes is wanted")
        pairs.append((name, value))
    return tuple(pairs)


def _check_time(timestamp_ms: object) -> None:
    if not isinstance(timestamp_ms, int) or isinstance(timestamp_ms, bool):
        raise TypeError(f"forward(timestamp_ms={timestamp_ms!r}) is no int of milliseconds")
    if timestamp_ms < 0:
        raise ValueError(f"forward(timestamp_ms={timestamp_ms}) is before 1970")
