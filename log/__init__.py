"""The partitioned log: topics, partitions, producers, consumers and transactions, in Kafka's file formats.

The files here are what everything else is made with: the narrow interface (client), records and batches as values and
bytes, the two doors to disk and time, errors. The folders, each knowing only those before it:

partition       one partition: segments and their indexes, what may be appended, what is on disk, what a crash left
compaction      of the records with the same key only the last stays
groups          consumer groups: who their members are, what they own, which offsets they committed
topics          which topics there are, where they lie, by which names they go
transactions    what is open, and how it ends, crash or not
checking        files looked at without opening a log: verify, dump

`broker` joins them in one process; `clients` are the producers and consumers that a program holds; `embedded` is the
log that `Log.open` hands out.
"""
