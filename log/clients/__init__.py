"""The producers and consumers of the embedded log."""
