"""Runs an extraction at another variant whose windows may have ended the server as one's before.

Loaded only where there are several variants.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from consumer.serving.dispatch.suspected import SuspectedWindows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.serving.dispatch.suspected import Suspect
    from consumer.worker.task_runner import TaskRunner
    from consumer.worker.variant import Variant


def careful(variant: Variant, by: Variant, suspects: Sequence[Suspect]) -> TaskRunner:
    """What runs the extraction of ``suspects`` there, which may have ended the server as windows of ``by``."""
    runner = copy(variant.runner)
    runner.dispatcher = SuspectedWindows(variant.dispatcher, suspects, same_bundle=by.bundle is variant.bundle)
    return runner
