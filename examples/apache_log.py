"""Requests per path and minute out of a web server's log: raw lines, parsed by the program.

    tailrace topics create access-log
    tailrace send access-log access.log.gz --format raw
    tailrace run tailrace.examples.apache_log --until end
    tailrace tail requests-per-minute

A server writes a line when the answer is sent, with the time at which the request came: lines are out of order by as
long as an answer takes. The windows wait a minute for them. A line that is no request is dropped, and counted as that.
"""

import re
from datetime import datetime

from msgspec import Struct

from tailrace import App, Windowed, minutes, tumbling

# The combined log format: host, two names, [time], "METHOD path protocol", status, bytes, …
LINE = re.compile(r'\S+ \S+ \S+ \[([^\]]+)\] "(\S+) (\S+)[^"]*" (\d{3}) ')


class Request(Struct):
    """One line of the log, as far as it is used here."""

    at: datetime
    path: str
    status: int


class Requests(Struct):
    """How many requests a path had in one minute, so far."""

    path: str
    minute: datetime
    requests: int


class CombinedLog:
    """A codec is any object with `encode` and `decode`; this one reads what an Apache server writes."""

    def encode(self, value: Request) -> bytes:
        """Refuse: this program writes no log lines."""
        raise TypeError(f"access-log is an input alone, and cannot take {value!r}")

    def decode(self, data: bytes) -> Request:
        """Read a line.

        Raises:
            ValueError: it is not in the combined log format.
        """
        found = LINE.match(data.decode())
        if not found:
            raise ValueError(f"not a line of the combined log format: {data[:80]!r}")
        at, _method, path, status = found.groups()
        return Request(datetime.strptime(at, "%d/%b/%Y:%H:%M:%S %z"), path, int(status))


def as_row(window: Windowed[str], requests: int) -> tuple[str, Requests]:
    """Make a row of a window and its count, keyed by path."""
    return window.key, Requests(window.key, window.start, requests)


app = App("apache-log", on_bad_record="skip")

lines = app.topic("access-log", key=bytes, value=Request, codec=CombinedLog(), timestamp=lambda request: request.at)
output = app.topic("requests-per-minute", key=str, value=Requests)

requests = (
    app.stream(lines)
    .group_by(lambda request: request.path)
    .windowed_by(tumbling(minutes(1), grace=minutes(1)))
    .count(store="requests")
)
requests.changes().map_kv(as_row).to(output)


if __name__ == "__main__":
    app.run()
