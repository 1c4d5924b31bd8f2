"""A program as plain data: topics, stores, operators, and the graph they make."""
