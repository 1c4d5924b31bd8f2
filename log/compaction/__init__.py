"""Compaction: of the records with the same key only the last stays."""
