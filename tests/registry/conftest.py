"""Property tests judge results, not speed: Hypothesis's deadline would fail them on a busy machine."""

from hypothesis import settings

settings.register_profile("entrepot", deadline=None)
settings.load_profile("entrepot")
