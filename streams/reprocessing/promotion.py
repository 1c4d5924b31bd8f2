"""The switch from an app to its replay, and back: which names come to stand for which, and that nobody is at work.

1. All names change in one step of the log (`Log.switch`): those of the outputs, so that readers move; those of the
   internal topics and of the group, so that the app itself goes on with the replay's state and offsets.
2. Neither the app nor the replay runs meanwhile: the log refuses where their groups have members.

Not here: how a log does that (tailrace.log.topics.switching), whether a replay is ready (replay).
"""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from tailrace.log.client import Log
from tailrace.log.errors import DiskFullError, InvalidError, RetriableError
from tailrace.streams.program.topology import Topology, changelog_topic, repartition_topic, silences_topic
from tailrace.streams.reprocessing.reset import internal_topics

# A transaction of somebody else in an output, or a commit of somebody who reads it, is over in a moment as a rule.
_TRIES: Final = 500
_PAUSE_S: Final = 0.01


def name_before(topic: str, into: str) -> str:
    """What stood under a topic's name is found under this one when the replay is promoted."""
    return f"{topic}.before-{into}"


def own_names(topology: Topology, app: str, replay: str) -> dict[str, str]:
    """The internal topics of an app, each with the one of its replay."""
    stores = [store for sub in topology.subtopologies for store in sub.stores]
    cuts = [cut.operator.repartition or "" for sub in topology.subtopologies for cut in sub.repartitions_read]
    read = [topic.name for node in topology.silences().values() if (topic := node.operator.reads) is not None]
    changelogs = {changelog_topic(app, store): changelog_topic(replay, store) for store in stores}
    silences = {silences_topic(app, topic): silences_topic(replay, topic) for topic in read}
    return changelogs | silences | {repartition_topic(app, cut): repartition_topic(replay, cut) for cut in cuts}


def promote(
    log: Log, app: str, replay: str, into: str, outputs: Mapping[str, str], internal: Mapping[str, str]
) -> None:
    """Has an app's names stand for those of its replay. Raises as `ReplayJob.promote`."""
    known = set(log.topics(internal=True))
    missing = [each for each in outputs.values() if each not in known]
    if missing:
        raise InvalidError(f"the replay {replay!r} has not written {missing[0]!r}: run() it first")
    before = {name_before(name, into): name for name in outputs if name in known}
    taken = sorted(before.keys() & known)
    if taken:
        raise InvalidError(
            f"what {before[taken[0]]!r} is now would be kept as {taken[0]!r}, and that is there already: delete it"
        )
    # The app's own topics that the replay has none of go out of sight, too: a store of that name begins empty.
    own = {**internal} | {name: replay + name.removeprefix(app) for name in internal_topics(log, app)}
    topics = {**outputs, **before, **{name: there for name, there in own.items() if {name, there} & known}}
    _check_nobody_runs(log, app, replay)
    _patiently(lambda: log.switch(replay, topics=topics, groups={app: replay}))


def switch_back(log: Log, app: str, replay: str) -> None:
    """Takes it back. Raises as `ReplayJob.undo`."""
    _check_nobody_runs(log, app, replay)
    _patiently(lambda: log.switch_back(replay))


def _check_nobody_runs(log: Log, *apps: str) -> None:
    for app in apps:
        members = [each.member for each in log.describe_group(app).members] if app in log.groups() else []
        if members:
            raise InvalidError(f"app {app!r} runs now, as {', '.join(members)}: stop it first; nothing was changed")


def _patiently(step: Callable[[], None]) -> None:
    pause = threading.Event()
    for _ in range(_TRIES):
        try:
            step()
        except DiskFullError:  # what it waits for is not over in a moment
            raise
        except RetriableError:
            pause.wait(_PAUSE_S)
        else:
            return
    step()
