"""Runs scenarios one after the other and keeps what came of them."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from apache_kafka import KafkaUnavailable
from chaos.outside import Program
from chaos.report import write
from chaos.scenario import Failed, Report, Skipped
from chaos.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.clusters import Clusters
    from chaos.scenario import Mode, Scenario


class Runner:
    """``reports`` grows with every run, and so does the report file, if there is one."""

    def __init__(self, clusters: Clusters, seed: int, folder: Path, minutes: float, report_file: Path | None) -> None:
        self.reports: list[Report] = []
        self.versions: set[str] = set()
        """Apache Kafka's, of the clusters that were used."""
        self._clusters = clusters
        self._seed = seed
        self._folder = folder
        self._minutes = minutes
        self._report_file = report_file

    def run(self, chosen: Sequence[Scenario | Program], mode: Mode | None) -> None:
        """All of ``chosen``, in ``mode`` or in every mode that each has."""
        for each in chosen:
            if isinstance(each, Program):
                say(f"--- {each.name}: {each.fault}")
                self._keep(each.run())
                continue
            for own in each.modes:
                if mode in (None, own):
                    self._keep(self._play(each, own))

    def _keep(self, report: Report) -> None:
        self.reports.append(report)
        if self._report_file is not None:
            write(self._report_file, self.reports, self._seed, sorted(self.versions))

    def _play(self, scenario: Scenario, mode: Mode) -> Report:
        say(f"--- {scenario.name} ({mode}): {scenario.fault}")
        say(f"    expected: {scenario.expected}")
        try:
            if scenario.prepare is not None:
                scenario.prepare()
        except Skipped as why:
            say(f"    SKIPPED: {why}")
            return Report(scenario.name, mode, scenario.fault, scenario.expected, skipped=str(why))
        started = time.monotonic()
        try:
            kafka = self._clusters.get(scenario.kafka)
        except (KafkaUnavailable, RuntimeError) as error:
            return Report(scenario.name, mode, scenario.fault, scenario.expected, failures=[str(error)])
        self.versions.add(kafka.version)
        place = Path(tempfile.mkdtemp(prefix=f"{scenario.name}-{mode}-", dir=self._folder))
        beside = self._report_file.parent if self._report_file is not None else place
        stage = Stage(scenario, mode, self._seed, place, kafka, say, self._minutes, beside)
        report = stage.report
        try:
            scenario.play(stage)
        except Failed as failed:
            report.failures.append(str(failed))
        except Exception as error:
            traceback.print_exc()
            report.failures.append(f"{type(error).__name__}: {error}")
        finally:
            stage.close()
        if report.failures:
            # What is left of the cluster is not known.
            self._clusters.stop()
        report.seconds = round(time.monotonic() - started, 1)
        say(
            f"    {'pass' if report.passed else 'FAIL'}: {report.inputs} inputs, {report.results} results, "
            f"{sum(report.dead_letters.values())} dead letters, {report.missing} missing, {report.duplicates} "
            f"duplicates ({report.duplicates_allowed} in flight at the faults), {report.seconds:.0f} s"
        )
        for failure in report.failures:
            say(f"    {failure}")
        return report


def say(words: str) -> None:
    """One plain line, at once."""
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
