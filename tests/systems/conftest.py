"""A real Kafka for a test."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.tests.support.shared import KAFKA


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address and the folder of its logs; stopped in the end."""
    folder = tmp_path / "kafka"
    folder.mkdir()
    (folder / "extra.properties").write_text("log.cleaner.backoff.ms=200\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _kafka("start", "--port", str(port), "--dir", str(folder))
    try:
        yield f"127.0.0.1:{port}", folder / "data"
    finally:
        _kafka("stop", "--dir", str(folder))


def _kafka(*arguments: str) -> None:
    # The script looks for the broker with `ps`, which cuts its lines to COLUMNS.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([str(KAFKA), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
