"""The replayed average of additions: on the shared recording, else on edits of its own, against a plain script."""

import gzip
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from tailrace import Log
from tailrace.examples.replay import main, newest
from tailrace.tests.support.shared import shared_data
from tailrace.tests.support.source import ROOT


@pytest.mark.parametrize("recorded", [False, True])
def test_it_is_replayed_compared_promoted_and_undone(
    recorded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "log")
    path = shared_data("wiki/wikiticker_am.ndjson.gz")
    if recorded:
        if path is None:
            pytest.skip(f"no recording beside {ROOT}")
        with Log.open(url) as log, gzip.open(path) as lines:
            log.create_topic("wiki-raw", partitions=2)
            with log.producer() as producer:
                producer.send_many("wiki-raw", [line.rstrip() for line in lines])
    main(url)
    edits: dict[str, list[int]] = defaultdict(list)
    with Log.open(url) as log, log.consumer() as reader:
        reader.assign(list(log.offsets("wiki-raw")))
        while records := reader.poll():
            for record in records:
                edit = msgspec.json.decode(record.value or b"")
                edits[edit["channel"][1:].split(".")[0]].append(max(edit.get("delta") or 0, 0))
        found = newest(log)
        assert "additions.before-v2" in log.topics()
    assert found.keys() == edits.keys()
    changed = 0
    for language, added in edits.items():
        adding = [each for each in added if each]
        assert found[language].edits == len(added)
        assert found[language].bytes_each == pytest.approx(sum(adding) / len(adding) if adding else 0.0)
        changed += 0 < len(adding) < len(added)
    out = capsys.readouterr().out
    assert f"{len(edits) - changed:,} same, {changed:,} changed, 0 missing, 0 new" in out
    assert 0 < changed < len(edits)
    seen = [line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ") and "Additions" in line]
    before, promoted, undone, again = (each.removeprefix("again").strip() for each in seen[-4:])
    assert before == undone != promoted == again
