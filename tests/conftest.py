"""How the suite is spread over processes (``make test``), and what the end of its output says about Apache Kafka."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from apache_kafka import SKIPPED
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.remote import Producer

# Some environments ask that no bytecode be kept. Then each process of the suite would rewrite the assertions of all
# tests again, ten seconds of processor, and each of the hundreds of interpreters that it starts compile all modules.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TOGETHER = ("golden", "integration/serving", "unit/extraction", "unit/model", "unit/serving")
"""Folders whose tests share what is made once for a process: models, encoders."""

OF_THE_CORE = (
    "golden/",
    "unit/batching/",
    "unit/codecs/",
    "unit/config/",
    "unit/delivery/",
    "unit/evaluation/",
    "unit/extraction/",
    "unit/resilience/",
)
"""Folders of the pure core's own tests. ``--cov`` measures what these run: others would take three times as long, and
what only they run is not tested where it should be."""


# 200 ms an example, and 30 s for the first ten, are measurements of the machine, which may have other work. And a run
# that draws the examples of the one before it fails for what was changed, not for what it drew: others are drawn with
# ``--hypothesis-profile "other examples"``.
settings.register_profile("other examples", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", settings.get_profile("other examples"), derandomize=True)
settings.load_profile("any machine")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell started the suite in the background, and what ignores Ctrl-C hands that on to what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ByFolder(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
    """One process runs all tests of a module, or of a folder whose tests share something expensive."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0].removeprefix("tests/")
        folder = str(PurePosixPath(module).parent)
        return folder if folder in TOGETHER else module


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measure no coverage but that of the core's own tests."""
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            if not item.nodeid.removeprefix("tests/").startswith(OF_THE_CORE):
                item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """The marker is of the test's own call: what it needs is made untraced as well, in half the time.

    What is drawn without a seed, as a backoff's jitter, is the same in every run, too.
    """
    random.seed(item.nodeid)
    trace = sys.gettrace()
    if item.get_closest_marker("no_cover"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(trace)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFolder:
    """As collected: the tests of ``integration`` wait most, and the short ones of ``unit`` fill the end."""
    config.option.loadscopereorder = False
    return ByFolder(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
    """Say at the very end which Kafka was used, and how many tests there was none for."""
    result = yield
    reports = [report for kind in terminalreporter.stats.values() for report in kind if hasattr(report, "longrepr")]
    for used in sorted(
        {value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "kafka"}
    ):
        terminalreporter.write_line(f"Kafka: {used}")
    reasons = [
        report.longrepr[2].partition(SKIPPED)[2]
        for report in reports
        if isinstance(report.longrepr, tuple) and SKIPPED in report.longrepr[2]
    ]
    if reasons:
        line = f"Apache Kafka: {len(reasons)} tests skipped because it cannot run: {reasons[0]}"
        terminalreporter.write_line(line, yellow=True, bold=True)
    return result
