"""What holds for all tests."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# The root of the repository holds a link called `dns`, and `python -m` puts the root first on the path, where it hides
# dnspython. At the end it serves `tests.*` and hides nothing.
_ROOT = str(Path(__file__).resolve().parents[1])
sys.path[:] = [entry for entry in sys.path if entry not in {"", _ROOT}] + [_ROOT]

# A deadline for each example is an assertion on time; the test's own timeout is enough. In CI the same examples come
# each time, so that a change is blamed for what it did; new ones are found where people can look at them.
settings.register_profile("entrepot", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("entrepot")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything is there: a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but in CI no test is: {call.excinfo.value if call.excinfo else ''}"
    return report
