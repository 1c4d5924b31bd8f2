"""The results of a foreign-key join: one for each left row, of the answers that stand.

1. Of each key that a row refers to, or referred to, the last answer counts. It stands until that key answers with none.
2. The result is the answer that was given last among those that stand. When every key that the row left has answered,
   one stands at most, and it is from the key that the row refers to: whatever overtook what on the way.
3. Nothing is written here while a row stays with its key: its store changes as often as rows move.

Not here: why answers can overtake one another (foreign), who gives them (subscribing).
"""

from collections.abc import Callable
from typing import Any

from tailrace.state.keyvalue import KeyValueStore
from tailrace.streams.chain.chain import Chain
from tailrace.streams.chain.context import TaskContext
from tailrace.streams.operators.foreign import STANDING, Answer, ForeignResult, Standing
from tailrace.streams.operators.kept import KeptTable, build_table
from tailrace.streams.operators.plain import Beside
from tailrace.streams.program.topology import Forward, Node

Answers = KeyValueStore[Any, list[Standing]]
"""By left key; the last one is shown."""


def build_result(chain: Chain, node: Node, operator: ForeignResult) -> Forward:
    """The link of the results: answers to changes of a kept table."""
    take = build_table(chain, node, operator)
    assert operator.store_name is not None
    kept = chain.state_nodes[operator.store_name]
    assert isinstance(kept, KeptTable)
    name, results, codec = operator.answers_name, kept.store, operator.value.codec
    answers: Answers = KeyValueStore(name, chain.keyspace(name), operator.key.codec, STANDING)
    chain.state_nodes[name] = Beside(answers)

    def shown(key: Any) -> tuple[bytes, int]:
        entry = results.load(results.cache_key(key))
        return codec.encode(entry.value), entry.timestamp_ms

    return answer_link(chain.context, answers, take, shown, codec.decode)


def answer_link(
    context: TaskContext,
    answers: Answers,
    take: Forward,
    shown: Callable[[Any], tuple[bytes, int]],
    decode: Callable[[bytes], Any],
) -> Forward:
    """What takes answers: `take` is called with results, None for none; `shown` gives the one there is, as bytes."""
    entries, load, cache_key = answers.entries, answers.load, answers.cache_key

    def link(key: Any, answer: Answer, timestamp_ms: int) -> None:
        if key is None:
            context.drop("null_key")
            return
        to, value = answer
        cached = cache_key(key)
        entry = entries.get(cached)
        if entry is None:
            entry = load(cached)
        standing = entry.value or []
        last = standing[-1].to if standing else b""
        if standing and last == to:
            if value is not None:
                take(key, value, timestamp_ms)
                return
            rest = standing[:-1]
            if rest:
                before = rest[-1]
                assert before.value is not None
                take(key, decode(before.value), before.time_ms)
                rest[-1] = Standing(before.to, None, 0)
            else:
                take(key, None, timestamp_ms)
        elif value is None:
            rest = [each for each in standing if each.to != to]
            if len(rest) == len(standing):
                return
        else:
            rest = [each for each in standing[:-1] if each.to != to]
            if standing:
                rest.append(Standing(last, *shown(key)))
            take(key, value, timestamp_ms)
            rest.append(Standing(to, None, 0))
        answers.put(key, rest or None, timestamp_ms)

    return link
