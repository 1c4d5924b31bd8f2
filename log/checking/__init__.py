"""Files looked at without opening a log: what verify checks, and what dump shows."""
