"""The fluent surface: each method checks its arguments and adds to the graph."""
