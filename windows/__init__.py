"""Windows as pure values on integer milliseconds: which ones a record opens, which merge, when each one closes."""
