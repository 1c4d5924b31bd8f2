"""Balances that add up after every kill, and a copy in a database that takes each change once."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from tailrace.examples import exactly_once
from tailrace.examples.exactly_once import Payment
from tailrace.log.client import Log
from tailrace.tests.support.command import Command
from tailrace.tests.support.engine import contents
from tailrace.tests.support.source import ROOT


def test_the_balances_add_up_however_often_it_is_killed(tailrace: Command, tmp_path: Path) -> None:
    chance = random.Random(5)
    made = [Payment(f"a{chance.randrange(50)}", chance.randint(-9_999, 9_999)) for _ in range(20_000)]
    (tmp_path / "payments.ndjson").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in made))
    wanted = Counter[str]()
    for each in made:
        wanted[each.account] += each.cents
    tailrace.ok("topics", "create", "payments", "--partitions", "4")
    tailrace.ok("send", "payments", str(tmp_path / "payments.ndjson"), "--key", "account")
    link = ROOT / ".dev" if (ROOT / ".dev").exists() else ROOT.parent
    command = [sys.executable, "-m", "tailrace", "--log", tailrace.log, "run", "tailrace.examples.exactly_once"]
    database = sqlite3.connect(tmp_path / "copy.db")
    copied = 0
    for _ in range(2):
        with subprocess.Popen(command, env=dict(os.environ, PYTHONPATH=str(link)), stderr=subprocess.DEVNULL) as app:
            state = Path(tailrace.log, "state/balances/.lock")
            while not state.exists() and app.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.1, 0.5))
            app.send_signal(signal.SIGKILL)
        with Log.open(tailrace.log) as log:
            if "balances" in log.topics():
                copied += exactly_once.copy(log, database)
    tailrace.ok("run", "tailrace.examples.exactly_once", "--until", "end")
    with Log.open(tailrace.log) as log:
        copied += exactly_once.copy(log, database)
        assert exactly_once.copy(log, database) == 0
        written = len(contents(log, "balances"))
    assert dict(database.execute("SELECT account, cents FROM balance").fetchall()) == dict(wanted)
    assert copied == written, "each change once"
    database.close()
