"""What `agg` puts together, one for each field of its result (docs/guides/aggregates.md).

Some have names of built-in functions, so import the module (`from tailrace import reducers`), or these under others.
"""

from tailrace.streams.program.reducers import collect, count, distinct, first, last, max, mean, min, reducer, sum, top_k  # noqa: A004 - the contract's names

__all__ = ["collect", "count", "distinct", "first", "last", "max", "mean", "min", "reducer", "sum", "top_k"]
