"""A topic as it is served: its record, its partitions, and the names by which it goes.

Not here: which topics there are (`catalog`), the records' form (`metadata`).
"""

from msgspec import structs

from tailrace.log.partition.partition import Partition
from tailrace.log.record import TopicPartition
from tailrace.log.topic import TopicConfig
from tailrace.log.topics.metadata import TopicRecord


class Topic:
    """A topic as it is served. `logs[n]` is partition n; `gone` once it is deleted.

    It never changes otherwise: a topic that is altered is another object, with the same partitions and maybe more, and
    `before` is what it was. Under another name (an alias) it is another object, too, with the same partitions: `tps`
    are what its readers and writers call them, `places` what they are called on disk.
    """

    def __init__(
        self, record: TopicRecord, config: TopicConfig, logs: list[Partition], before: "Topic | None" = None
    ) -> None:
        self.record = record
        self.name = record.name
        self.topic_id = record.topic_id
        self.partitions = record.partitions
        self.internal = record.internal
        self.config = config
        self.logs = logs
        self.tps = [TopicPartition(record.name, number) for number in range(record.partitions)]
        self.places = self.tps
        self.views: dict[str, Topic] = {}
        """Itself under other names."""
        self.gone = False
        self.before = before

    def mark_gone(self) -> None:
        """For all who hold it, or what it was before it was altered."""
        each: Topic | None = self
        while each is not None:
            each.gone = True
            for view in each.views.values():
                view.gone = True
            each = each.before

    def under(self, name: str) -> "Topic":
        """The same topic under another name: the same object each time."""
        if name not in self.views:
            view = self.views[name] = Topic(structs.replace(self.record, name=name), self.config, self.logs)
            view.places = self.places
        return self.views[name]
