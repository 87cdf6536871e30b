"""Settings that hold for every test."""

from hypothesis import settings

# A deadline on each example measures how busy the machine is, not the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
