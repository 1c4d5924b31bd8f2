"""Foreign-key joins at work: rows of one table follow the rows of another that they refer to.

1. The right side keeps exactly the left rows that refer to one of its keys, each under the last one that it named.
2. A row that turns to another key is there before it leaves the old one: where one task follows the other, what
   follows from the new one is the one result.
3. A result's time is the largest of the two rows' times; of a row that is missing there is none.
4. Every change of what refers to a key is answered, with what is made of it there; the result puts the answers of
   several keys in order (answering).
5. The right side's rows are seen as they were sent (views): a change that a cache holds back comes to all rows that
   refer to it when it is sent.

Where the app goes on after errors, a row for which a function raises is not in the result.
"""

import operator as python
from collections.abc import Callable
from typing import Any

from tailrace.state.store import new_tuple
from tailrace.state.subscription import SubscriptionStore
from tailrace.streams.chain.chain import Chain, Sides
from tailrace.streams.chain.context import FAR
from tailrace.streams.operators.foreign import Answer, ForeignLookup, Subscribe, Subscription
from tailrace.streams.operators.views import look_at
from tailrace.streams.program.results import look_once
from tailrace.streams.program.topology import Forward, Node
from tailrace.streams.values.codec import guarded
from tailrace.streams.values.derived import Slot, key_check

_IMMUTABLE = (int, str, float, bytes, bool, type(None))


def build_subscribe(chain: Chain, node: Node, operator: Subscribe) -> Forward:
    """The link of the left side: changes of a row to what is said to the keys that it referred and refers to."""
    context, forward, inner = chain.context, chain.output(node.id), operator.inner
    refers_to, same = _refers_to(operator), _same_key(operator.right_key)

    def send(key: Any, was: Any, now: Any, value: Any, timestamp_ms: int) -> None:
        # Where there is nothing to refer to there is no result, but in a left join.
        comes = value is not None and (now is not None or not inner)
        leaves = context.old is not None and (was is not None or not inner)
        if comes and leaves:
            leaves = not (was is now or (was is not None and now is not None and same(was, now)))
        try:
            if comes:
                forward(now, new_tuple(Subscription, (key, value)), timestamp_ms)
        finally:
            if leaves:
                forward(was, new_tuple(Subscription, (key, None)), timestamp_ms)

    def subscribe_link(key: Any, value: Any, timestamp_ms: int) -> None:
        old = context.old
        try:
            was = None if old is None else refers_to(old)
        except Exception:
            if not context.goes_on:
                raise
            was = None  # dealt with when the value was new
        try:
            now = None if value is None else refers_to(value)
        except Exception:
            if context.goes_on and old is not None:
                send(key, was, None, None, timestamp_ms)
            raise
        if value is None and old is None:
            return
        if inner and value is not None and now is None:
            context.drop("null_key")
        send(key, was, now, value, timestamp_ms)

    return subscribe_link


def _refers_to(operator: Subscribe) -> Callable[[Any], Any]:
    """Value to the key that it refers to, found to be one of the right table."""
    f, right = operator.f, operator.right_key
    named_by = "on=, a function that returns one"
    slot = Slot("key", operator.name, place=operator.place, of=right.of, codec=right.codec, named_by=named_by)
    slot.need()
    plain, check = key_check(slot, operator.place)
    encode = guarded(right.codec, f"the key that on= of the join at {operator.place} found").encode

    def refers_to(value: Any) -> Any:
        key = f(value)
        if key is None or key.__class__ is plain:
            return key
        if plain is None:
            encode(key)
            return key
        return check(key)

    return refers_to


def _same_key(slot: Slot) -> Callable[[Any, Any], bool]:
    """Whether two keys are one: by their bytes, where a dict could not tell."""
    codec = slot.codec
    if codec.hashable:
        return python.eq
    encode = codec.encode
    return lambda one, other: encode(one) == encode(other)


class Subscriptions:
    """The store of the right side, as its task and the commit see it: nothing in it waits for a flush or for time."""

    def __init__(self, store: SubscriptionStore) -> None:
        self.name = store.name
        self.store = store

    @property
    def dirty(self) -> int:
        """How many changes wait for the next commit."""
        return self.store.dirty

    def resume(self, _stream_time_ms: int) -> None:
        """Nothing depends on time."""

    def close_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return FAR

    def open_windows(self, _stream_time_ms: int) -> int:
        """There are none."""
        return 0

    def flush(self, _stream_time_ms: int) -> None:
        """Nothing is held back."""
        self.store.flush()


def build_foreign_lookup(chain: Chain, node: Node, operator: ForeignLookup) -> Sides:
    """The links of the right side: of subscriptions, and of the right table's changes."""
    name, right = operator.store_name, chain.node(node.parents[1].node)
    store = SubscriptionStore(name, chain.keyspace(name))
    chain.state_nodes[name] = Subscriptions(store)
    made = _Results(chain, node, operator)
    encode_left = chain.known_as(node, operator.left_value.told.encode)
    decode_left, left_key = operator.left_value.codec.decode, operator.left_key.codec
    encode_key, decode_key = left_key.encode, left_key.decode
    encode_right = operator.right_key.codec.encode
    look = look_at(chain, right)

    def subscription_link(refers_to: Any, sent: Subscription, timestamp_ms: int) -> None:
        key, value = sent
        if refers_to is None:
            made.send(key, None, value, None, timestamp_ms)
            return
        to = encode_right(refers_to)
        store.put(to, encode_key(key), None if value is None else encode_left(value), timestamp_ms)
        found, found_ms = look(refers_to)
        made.send(key, to, value, found, timestamp_ms if timestamp_ms > found_ms else found_ms)

    def right_link(refers_to: Any, value: Any, timestamp_ms: int) -> None:
        shared, to = isinstance(value, _IMMUTABLE), encode_right(refers_to)
        for key, left, left_ms in store.of(to):
            # Functions may change what they are given, so each gets its own.
            found = value if shared else look(refers_to)[0]
            made.send_next(
                decode_key(key), to, decode_left(left), found, timestamp_ms if timestamp_ms > left_ms else left_ms
            )

    return Sides((subscription_link, right_link))


class _Results:
    """What is made of a left row and the one that it refers to, and sent back."""

    def __init__(self, chain: Chain, node: Node, operator: ForeignLookup) -> None:
        self._context = chain.context
        self._forward = chain.output(node.id)
        self._f = operator.f
        self._inner = operator.inner
        made = operator.made
        self._look = None if made.trusted else look_once(chain.known_as(node, made.told.encode))

    def send(self, key: Any, to: bytes | None, left: Any, right: Any, timestamp_ms: int) -> None:
        """Sends a row's result, None for none. Where the function raises there is none."""
        f, look = self._f, self._look
        result = None
        try:
            if left is not None and (right is not None or not self._inner):
                result = f(left, right)
                if look is not None:
                    look(result)
        except Exception:
            if self._context.goes_on:
                self._forward(key, Answer(to, None), timestamp_ms)
            raise
        self._forward(key, new_tuple(Answer, (to, result)), timestamp_ms)

    def send_next(self, key: Any, to: bytes, left: Any, right: Any, timestamp_ms: int) -> None:
        """The same for one row of several: the others are sent also where this one fails and the app goes on."""
        try:
            self.send(key, to, left, right, timestamp_ms)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            self._context.failed(error, (key, left, timestamp_ms))
