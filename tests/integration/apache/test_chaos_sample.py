"""A small part of the chaos suite: its harness, its load and its audit, on three faults in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chaos.scenarios.sample import SCENARIOS
from chaos.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import ApacheKafka


@pytest.mark.timeout(600)
def test_killed_model_server_worker_and_broker_leave_every_record_with_its_outcomes(
    private_kafka: ApacheKafka, tmp_path: Path
) -> None:
    """Nothing is missing and nothing comes twice; ``make chaos`` has the other faults, in both modes."""
    (sample,) = SCENARIOS
    # One seed for all runs of the suite: make chaos draws others.
    stage = Stage(sample, "exactly_once", 4_117, tmp_path, private_kafka, print)
    try:
        sample.play(stage)
    finally:
        stage.close()
    assert stage.report.failures == []
    assert stage.audited.inputs > 0
