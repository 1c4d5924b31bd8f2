"""Transactions: what is open under which transactional id, and how it ends, crash or not."""
