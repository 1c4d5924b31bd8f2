"""Streams and tables: the graph, the fluent surface, tasks and the runner."""
