"""What becomes of a record for which a function of the user raised: it ends the app, is dropped, or kept as it came.

The rule is Kafka Streams' (KIP-1033): what raises is one node, and the record goes no further *there*. What had been
done before stays: state of an earlier aggregate, rows that an output or the task behind a hop was handed. Other
branches, and the other records that a flat_map made of it, go their way.

1. A node that goes on after what it sent on never sees an exception of what stands behind it: whoever calls a chain and
   goes on (the loop over a batch, a hop, a fan-out, what sends results, a processor's `forward`, a scheduled call)
   catches, and hands it to `TaskContext.failed`.
2. Only what the user's code raised is dropped, and values that a codec cannot take. An error of the log (retriable,
   fenced, corrupt), of a store or of ours ends the app whatever the policy, also where a processor caught it.
3. Each time that something is dropped it is counted as "error".

A `try` that nothing raises through costs nothing, so there is one wherever somebody goes on; only fan-outs and
flat_maps get a link of their own in front, and only where the policy is not "fail".
Not here: records that cannot be read (bad_records). Functions that are called for no record at all, as a processor's
`init` and `close`, always end the app.
"""

import logging
from typing import Any

from tailrace.log.errors import EncodeError, InvalidError, TailraceError, TopologyError
from tailrace.streams.chain.bad_records import Letter, explained
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.chain.failure import Nodes, at, came_from_user, node_of
from tailrace.streams.chain.outputs import Outputs
from tailrace.streams.program.topology import Forward
from tailrace.streams.values.wording import shown, words

_logger = logging.getLogger(__name__)
# Of a result that goes to the dead letters, where there are no bytes of a record.
_RESULT_CHARS_MAX = 2_000


class Failures:
    """The policy of one app that goes on after errors, and what it has seen; `dead_letters` None: nothing is kept."""

    def __init__(self, nodes: Nodes, outputs: Outputs, dead_letters: str | None) -> None:
        self._nodes = nodes
        self._outputs = outputs
        self._dead_letters = dead_letters
        self._fatal: Exception | None = None
        """What ends the app: raised through many hands, and judged by the first of them, which knows where it began."""
        self._told: set[str] = set()

    def take_over(self, context: TaskContext) -> None:
        """Has the chains of a task hand over their exceptions here; before they are built."""

        def failed(error: Exception, result: tuple[Any, Any, int] | None = None, /) -> None:
            if error is self._fatal or self._ends_the_app(error):
                self._fatal = error
                raise error
            name = node_of(error, self._nodes)
            if name not in self._told:
                self._told.add(name)
                kind = type(error).__name__
                _logger.warning(
                    "%s in %s at %s: %s; it is dropped, and others like it are too, and counted",
                    kind,
                    name,
                    at(error, context),
                    words(error),
                )
            if self._dead_letters is not None:
                self._outputs.raw(self._dead_letters, _letter(error, name, context, result))
            context.drop("error")

        context.failed, context.goes_on = failed, True

    def _ends_the_app(self, error: Exception) -> bool:
        if isinstance(error, EncodeError):
            return False
        if isinstance(error, MemoryError | TopologyError):
            return True
        if isinstance(error, TailraceError) and not isinstance(error, InvalidError):
            return True
        return not came_from_user(error, self._nodes)


def guard(link: Forward, context: TaskContext) -> Forward:
    """The link, for callers that go on: what it raises is dealt with."""

    def guarded_link(key: Any, value: Any, timestamp_ms: int) -> None:
        try:
            link(key, value, timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            context.failed(error, (key, value, timestamp_ms))

    return guarded_link


def _letter(error: Exception, node: str, context: TaskContext, result: tuple[Any, Any, int] | None) -> Letter:
    record = context.source_record()
    if record is not None and context.source is not None:
        return explained(record, context.source, node, error)
    what = context.where()
    time_ms = max(context.stream_time_ms, 0)
    if result is not None:
        key, value, time_ms = result
        what = f"{what}: key {shown(key, _RESULT_CHARS_MAX)}, value {shown(value, _RESULT_CHARS_MAX)}"
    headers = [("tailrace.result", what[:_RESULT_CHARS_MAX].encode())]
    return explained(Letter(-1, time_ms, None, None, headers), None, node, error)
