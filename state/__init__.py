"""State stores: memory and RocksDB, write-back caches, changelogs, restoring."""
