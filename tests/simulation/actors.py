"""Who writes to the log: plain producers, producers of transactions, and those that copy what is committed.

1. A step is one call into the log, or a few that belong together, so that others come in between.
2. An actor tells the model what it was told itself, and nothing else: no answer leaves a deed unknown.
3. `died` comes when its process has ended: nothing that it held may be used again.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from msgspec.json import encode

from tailrace.log.client import Consumer, Delivery, Producer
from tailrace.log.errors import FencedError, InvalidError, RetriableError
from tailrace.log.record import TopicPartition
from tailrace.tests.simulation.model import Deed, Fate, Row, Sent, Violation, read_committed
from tailrace.tests.simulation.world import CLICKS, TOPICS, World
from tailrace.tests.support.programs import Click

KEYS: Final = [b"a", b"b", b"c", None]
TIMEOUT_MS: Final = 60_000


class Actor(ABC):
    """See the head of this file."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name

    @abstractmethod
    def step(self) -> None:
        """Does its next thing."""

    @abstractmethod
    def died(self) -> None:
        """Its process has ended."""

    def drain(self) -> None:
        """Nothing fails any more: brings what it has begun to an end."""
        return

    def check(self) -> None:
        """What it alone can tell, when the log is settled."""
        return

    def say(self, what: str) -> None:
        """A line of the trace."""
        self.world.say(f"{self.name} {what}")

    def put(self, producer: Producer, deed: Deed, topic: str) -> tuple[Sent, Delivery] | None:
        """Sends one record as a part of a deed; None where it was refused, and the deed has it all the same."""
        chance = self.world.random
        key = chance.choice(KEYS[:3] if topic == "keyed" else KEYS)
        value, at_ms = self.world.model.value(deed), None
        if topic == CLICKS:
            at_ms = self.world.click_ms()
            value = encode(Click(chance.choice("pqr"), value.decode(), at_ms))
        sent = Sent(TopicPartition(topic, chance.randrange(TOPICS[topic][0])), key, value)
        return self.send(producer, deed, sent, at_ms)

    def send(self, producer: Producer, deed: Deed, sent: Sent, at_ms: int | None) -> tuple[Sent, Delivery] | None:
        """The same with a record that is made."""
        deed.sent.append(sent)
        self.say(f"sends {sent.value.decode()} to {sent.partition}")
        topic, partition = sent.partition
        with self.world.excusing(f"{self.name}: send"):
            return sent, producer.send(topic, sent.value, key=sent.key, timestamp_ms=at_ms, partition=partition)
        return None


class Plain(Actor):
    """Sends records, each a deed of its own; `acks=1` ones are loose."""

    def __init__(self, world: World, name: str, topics: list[str], *, loose: bool = False) -> None:
        super().__init__(world, name)
        self._topics = topics
        self._loose = loose
        self._producer: Producer | None = None
        self._waiting: list[tuple[Deed, Sent, Delivery]] = []

    def step(self) -> None:
        """Sends, or waits for what was sent."""
        if self._producer is None:
            with self.world.excusing(f"{self.name}: producer"):
                self._producer = self.world.log.producer(acks=1 if self._loose else "all", batch_bytes=200)
            return
        if self._waiting and self.world.chance(0.4):
            self._flush(self._producer)
            return
        for _ in range(self.world.random.randint(1, 3)):
            self.put_one()

    def put_one(self) -> None:
        """Sends one."""
        assert self._producer is not None
        deed = self.world.model.begin(self.name, plain=True)
        put = self.put(self._producer, deed, self.world.random.choice(self._topics))
        if put is not None:
            self._waiting.append((deed, *put))

    def hand_over(self, deed: Deed, sent: Sent, at_ms: int) -> None:
        """Sends one that is made."""
        if self._producer is None:
            self._producer = self.world.log.producer(batch_bytes=200)
        put = self.send(self._producer, deed, sent, at_ms)
        if put is not None:
            self._waiting.append((deed, *put))

    def _flush(self, producer: Producer) -> None:
        self.say("flushes")
        waiting, self._waiting = self._waiting, []
        for deed, sent, delivery in waiting:
            with self.world.excusing(f"{self.name}: {sent.value.decode()}"):
                sent.offset = delivery.result().offset
                deed.fate = Fate.LOOSE if self._loose else Fate.COMMITTED
        with self.world.excusing(f"{self.name}: flush"):
            producer.flush()

    def drain(self) -> None:
        """Waits for what was sent."""
        if self._producer is not None:
            self._flush(self._producer)

    def died(self) -> None:
        """See `Actor.died`."""
        self._producer, self._waiting = None, []


class Transactional(Actor):
    """Puts records and offsets into transactions, loses its id to rivals, and comes back as a ghost of before."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._producer: Producer | None = None
        self._deed: Deed | None = None
        self._waiting: list[tuple[Sent, Delivery]] = []
        self._asked = False  # a commit was asked for, and did not answer
        self._deadline = 0.0
        self._ghosts: list[Producer] = []

    def step(self) -> None:
        """One step of a transaction, or of what may befall it."""
        world, producer = self.world, self._producer
        if producer is None:
            self._take()
        elif self._ghosts and world.chance(0.2):
            self._haunt(self._ghosts.pop())
        elif self._deed is None:
            self._begin(producer)
        elif self._asked:
            self._end(producer, commit=world.chance(0.7))
        else:
            self._go_on(producer, self._deed)

    def _go_on(self, producer: Producer, deed: Deed) -> None:
        choice = self.world.random.random()
        if choice < 0.55:
            self._deadline = self._deadline or self.world.clock.monotonic() + TIMEOUT_MS / 1000
            topic = self.world.random.choice(["mixed", "mixed", "keyed", "short", CLICKS, CLICKS])
            with self._unless_overdue():
                put = self.put(producer, deed, topic)
                if put is not None:
                    self._waiting.append(put)
        elif choice < 0.6:
            with self._unless_overdue(), self.world.excusing(f"{self.name}: flush", self._maybe_fenced):
                producer.flush()
        elif choice < 0.7:
            self._send_offsets(producer, deed)
        elif choice < 0.9:
            self._end(producer, commit=True)
        elif choice < 0.94:
            self._end(producer, commit=False)
        else:
            self._lose_producer(producer)

    def _maybe_fenced(self, error: BaseException) -> None:
        if isinstance(error, FencedError):
            self._lost("is fenced")

    def _overdue(self) -> bool:
        return bool(self._deadline) and self.world.clock.monotonic() >= self._deadline

    # ---- an id

    def _take(self) -> None:
        self.say("takes its id")
        with self.world.excusing(f"{self.name}: take"):
            self._producer = self.world.log.producer(
                transactional_id=self.name, batch_bytes=200, transaction_timeout_ms=TIMEOUT_MS
            )

    def _lose_producer(self, producer: Producer) -> None:
        """Its worker dies, or is cut off and comes back as a ghost."""
        if self.world.chance(0.5):
            self._ghosts.append(producer)
        self._lost("is replaced")

    def _lost(self, why: str) -> None:
        self.say(why)
        if self._deed is not None and not self._asked:
            self._deed.fate = Fate.ABORTED
        self._reset()
        self._producer = None

    def _haunt(self, ghost: Producer) -> None:
        """Nothing that a fenced producer does may have an effect; the first thing that it is told is that it is one."""
        deed = self.world.model.begin(f"the ghost of {self.name}")
        deed.fate = Fate.ABORTED
        self.say("comes back as a ghost")
        try:
            with suppress(InvalidError):  # it died within a transaction
                ghost.begin()
            put = self.put(ghost, deed, "mixed")
            if put is not None:
                ghost.commit()
        except FencedError:
            return
        except Exception as error:
            if not self.world.excused(error):
                raise
            return
        raise Violation(f"the ghost of {self.name} has committed")

    # ---- a transaction

    def _reset(self) -> None:
        self._deed, self._waiting, self._asked, self._deadline = None, [], False, 0.0

    def _begin(self, producer: Producer) -> None:
        self._reset()
        self.say("begins")
        with self.world.excusing(f"{self.name}: begin", self._maybe_fenced):
            producer.begin()
            self._deed = self.world.model.begin(self.name)
            put = self.put(producer, self._deed, "mixed")  # so that its fate can be told from what is seen
            self._deadline = self.world.clock.monotonic() + TIMEOUT_MS / 1000
            if put is not None:
                self._waiting.append(put)

    def _send_offsets(self, producer: Producer, deed: Deed) -> None:
        tp = TopicPartition("plain", self.world.random.randrange(2))
        offset = self.world.log.offsets("plain")[tp]
        self.say(f"sends offset {offset} of {tp}")
        with self._unless_overdue(), self.world.excusing(f"{self.name}: offsets", self._maybe_fenced):
            producer.send_offsets(self.name, {tp: offset})
            deed.offsets[self.name, tp] = offset

    @contextmanager
    def _unless_overdue(self) -> Generator[None]:
        try:
            yield
        except Violation as error:
            if not (isinstance(error.__cause__, FencedError) and self._overdue()):
                raise
            self._lost("was too slow")

    def _end(self, producer: Producer, *, commit: bool) -> None:
        word = "commit" if commit else "abort"
        self.say(f"asks for the {word}")
        deed = self._deed
        assert deed is not None
        try:
            producer.commit() if commit else producer.abort()
        except FencedError as error:
            if not (self._overdue() or self.world.excused(error)):
                raise Violation(f"{self.name} is fenced, and nobody has its id: {error}") from error
            self._lost("was too slow")
        except InvalidError as error:
            if not self._asked:
                raise Violation(f"{word} of {deed} raised {error}") from error
            self.say(f"is told: {error}")
        except Exception as error:
            refused = self._asked and isinstance(error, RetriableError)  # by an abort that was half done
            if not (refused or self.world.excused(error)):
                raise Violation(f"{word} of {deed} raised {type(error).__name__}: {error}") from error
            self.say(f"has no answer: {type(error).__name__}: {error}")
            deed.fate, self._asked = Fate.UNKNOWN, True
        else:
            deed.fate = Fate.COMMITTED if commit else Fate.ABORTED
            self._note_offsets(deed)
            self._reset()

    def _note_offsets(self, deed: Deed) -> None:
        for sent, delivery in self._waiting:
            if deed.fate is Fate.COMMITTED:
                sent.offset = delivery.result().offset
        self.say(f"has its answer: deed {deed.number} is {deed.fate.value}")

    def drain(self) -> None:
        """Ends what is open, its own and what a producer before it has left."""
        self._ghosts.clear()
        if self._producer is None:
            self._take()
        for attempt in range(4):
            if self._producer is not None and self._deed is not None:
                self._end(self._producer, commit=attempt % 2 == 0)
        if self._deed is not None:
            raise Violation(f"{self.name} can neither commit nor abort {self._deed}")

    def died(self) -> None:
        """See `Actor.died`."""
        if self._deed is not None and not self._asked:
            self._deed.fate = Fate.UNKNOWN if self._deed.fate is Fate.UNKNOWN else Fate.ABORTED
        self._reset()
        self._producer = None
        self._ghosts.clear()


class Copier(Actor):
    """Copies what is committed in "mixed" to "sink", each record once: records and offsets in one transaction."""

    GROUP: Final = "copiers"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._rows: list[Row] = []
        self._deed: Deed | None = None
        self._waiting: list[tuple[Sent, Delivery]] = []

    def step(self) -> None:
        """Takes its place, reads, copies, commits."""
        with self.world.excusing(f"{self.name}: step", self._failed):
            try:
                self._next()
            except FencedError as error:
                self.say(f"is fenced: {error}")
                self._failed(error)

    def _next(self) -> None:
        if self._producer is None:
            self.say("takes its id")
            self._producer = self.world.log.producer(transactional_id=self.name, batch_bytes=200)
        elif self._consumer is None:
            self.say("joins")
            consumer = self.world.log.consumer(group=self.GROUP)
            consumer.subscribe(["mixed"])
            self._consumer = consumer
        elif self._deed is not None:
            self._commit(self._producer, self._consumer, self._deed)
        else:
            self._rows = self._consumer.poll(0, self.world.random.choice([1, 3, 500]))
            if self._rows:
                self._copy(self._producer)

    def _copy(self, producer: Producer) -> None:
        producer.begin()
        self._deed = self.world.model.begin(self.name)
        self.say(f"copies {', '.join(f'{row.topic}-{row.partition}@{row.offset}' for row in self._rows)}")
        for row in self._rows:
            key = f"{row.topic}-{row.partition}@{row.offset}".encode()
            sent = Sent(TopicPartition("sink", 0), key, self.world.model.value(self._deed))
            self._deed.sent.append(sent)
            self._waiting.append((sent, producer.send("sink", sent.value, key=key)))

    def _commit(self, producer: Producer, consumer: Consumer, deed: Deed) -> None:
        offsets = {(row.topic, row.partition): row.offset + 1 for row in self._rows}
        self.say(f"commits {offsets}")
        producer.send_offsets(self.GROUP, offsets, member=consumer.member())
        deed.offsets = {(self.GROUP, TopicPartition(*tp)): at for tp, at in offsets.items()}
        deed.fate = Fate.UNKNOWN
        producer.commit()
        deed.fate = Fate.COMMITTED
        for sent, delivery in self._waiting:
            sent.offset = delivery.result().offset
        self.say(f"has committed deed {deed.number}")
        self._deed, self._waiting = None, []

    def _failed(self, _: BaseException) -> None:
        """Goes on from the last commit, as another: whoever takes the id anew ends what was open."""
        self.died()

    def drain(self) -> None:
        """Copies all there is."""
        for _ in range(200):
            self.step()
            if self._consumer is not None and self._deed is None and not self._rows:
                return
        raise Violation(f"{self.name} does not come to an end")

    def check(self) -> None:
        """What is in the sink is what the group has passed, each record once."""
        log = self.world.log
        committed = log.committed(self.GROUP)
        copied = sorted(row.key or b"" for row in read_committed(log, TopicPartition("sink", 0)))
        wanted = sorted(
            f"{tp}@{row.offset}".encode()
            for tp in log.offsets("mixed")
            for row in read_committed(log, tp)
            if row.offset < committed.get(tp, 0)
        )
        if wanted != copied:
            lacks, more = Counter(wanted) - Counter(copied), Counter(copied) - Counter(wanted)
            raise Violation(f"the sink lacks {list(lacks)}, has {list(more)} wrongly; the group stands at {committed}")

    def died(self) -> None:
        """See `Actor.died`."""
        if self._deed is not None and self._deed.fate is Fate.OPEN:
            self._deed.fate = Fate.ABORTED
        self._producer = self._consumer = self._deed = None
        self._rows, self._waiting = [], []
