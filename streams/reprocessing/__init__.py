"""The past once more: replay, comparison, switch, reset, and tables as they were."""
