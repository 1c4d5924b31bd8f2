"""Streams and tables: how a program is written, planned and run.

The files here are the path of a record: an app is started, its runner reads, a task takes each record through its
chain, a commit makes what came of it last. The folders, each knowing only those before it:

values          types, and values to bytes and back
program         a program as plain data: topics, stores, the graph of its operators
chain           what a task puts its records through: inputs, clocks, hops, outputs, and what becomes of errors
operators       what is done on the way: folds, joins, suppression
surface         the methods of streams and tables, each of which adds to the graph
planning        from a program and a log to tasks that are ready to run
running         whose turn it is, members of one app, when to commit
reprocessing    replay, comparison, switch, reset, and tables as they were
"""
