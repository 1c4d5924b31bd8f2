"""For all tests: property tests try the same examples each time, and are not timed one by one."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
