"""Types, and values to bytes and back."""
