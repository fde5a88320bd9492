"""Settings for all tests."""

from hypothesis import settings

settings.register_profile("jettison", deadline=None)  # a shared machine may stop for longer than any example
settings.load_profile("jettison")
