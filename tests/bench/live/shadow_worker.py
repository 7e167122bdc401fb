"""A shadow run of all that a topic holds and gets: what ``rexstream shadow run`` runs, without its plan.

    python tests/bench/live/shadow_worker.py CONFIG TOPIC SHARE

The embedded broker cannot keep a plan. Settings and parts are the command's own, with the range of the whole topic.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[number]) for number in (3, 2)]

from bench.live.stage import PARTITIONS  # noqa: E402 - where it is, is said above

from consumer.config.loading import load_config  # noqa: E402
from consumer.config.shadow import shadow_config  # noqa: E402
from consumer.config.task_files import load_tasks  # noqa: E402
from consumer.delivery.shadow_plan import PlannedRange  # noqa: E402
from consumer.events import Partition  # noqa: E402
from consumer.telemetry.logs import configure_logging  # noqa: E402
from consumer.worker.lifecycle import Worker  # noqa: E402
from consumer.worker.shadow_parts import ShadowParts  # noqa: E402
from consumer.worker.start_checks import StartChecks  # noqa: E402

EVERYTHING = PlannedRange(0, 2**62, {})


def main(path: str, topic: str, share: str) -> int:
    """Run until SIGTERM; the exit code."""
    # What is in flight when it is stopped is not waited for: it is read again.
    config = shadow_config(load_config(path, {}, ["delivery.grace_seconds=1"]), [topic], share=float(share))
    configure_logging(config.observability.log_level, "shadow")
    checks = StartChecks(config)
    assert checks.bundles, checks.refused()
    plan = {Partition(topic, number): EVERYTHING for number in range(PARTITIONS)}
    parts = ShadowParts(plan, None, float(share))
    return asyncio.run(Worker(config, load_tasks(config.tasks_dirs), "shadow", checks.bundles, parts=parts).run())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
