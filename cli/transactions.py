"""Open transactions in the words of the command line: whose they are, since when, and where readers wait for them."""

from typing import Any

from tailrace.log.client import TransactionDescription


def transaction_row(found: TransactionDescription) -> dict[str, Any]:
    """As JSON."""
    return {
        "topic": found.partition.topic,
        "partition": found.partition.partition,
        "transactional_id": found.transactional_id,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "first_offset": found.first_offset,
        "age_ms": found.age_ms,
    }


def transaction_line(found: TransactionDescription) -> str:
    """As a line for a person."""
    whose = f"producer {found.producer_id}" if found.transactional_id is None else repr(found.transactional_id)
    return (
        f"{found.partition}@{found.first_offset}: a transaction of {whose} is open for {found.age_ms / 1000:.1f} s; "
        "readers of committed records wait for it"
    )
