"""Topics: which there are, where they lie, by which names they go."""
