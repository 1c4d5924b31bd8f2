"""Windows as pure values on integer milliseconds."""
