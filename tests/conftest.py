"""For all tests: property tests try the same examples each time, and are not timed one by one.

A shell's background job is born ignoring Ctrl-C, and so would be the processes that tests start to interrupt them.
"""

import signal

from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")
