"""Consumer groups: who their members are, what they own, which offsets they committed."""
