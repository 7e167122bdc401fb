"""Runs the benchmarks one after the other and writes one report: ``make bench``, or with everything ``ARGS=--full``.

    PYTHONPATH=tests python -m bench.report [--full] [--only NAME]... [--output build/bench]

A benchmark that fails, hangs or is missing is named in the report with its reason, and stops no other; the report is
written anew after each, so nothing is lost when it is interrupted. Exit code 1 when one has failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from bench.report.benchmarks import BENCHMARKS
from bench.report.document import Result, write
from bench.report.machine import ROOT, facts, load
from bench.report.section import parsed

if TYPE_CHECKING:
    from bench.report.benchmarks import Benchmark

STOP_SECONDS = 10.0
"""That a benchmark has, once it is told to stop, to end what it started."""
LAST_LINES = 6
_STOPPED: set[subprocess.Popen[str]] = set()


def run(benchmark: Benchmark, folder: Path, *, full: bool, place: str) -> Result:
    """Run one to its end or its time limit. What it prints goes to the terminal, indented, and to a log."""
    program = f"tests/bench/{benchmark.program}"
    command = [program, *(benchmark.full if full else ("--quick",))]
    told = f"python {' '.join(command)}"
    limit = benchmark.full_seconds if full else benchmark.quick_seconds
    print(f"\n[{place}] {told} (at most {limit:.0f} s)", flush=True)
    if not (ROOT / program).exists():
        return Result(benchmark.name, told, 0.0, None, f"there is no {program}")
    output, log = folder / f"{benchmark.name}.json", folder / f"{benchmark.name}.log"
    output.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-u", *command, "--json", str(output)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # with all that it starts, so that nothing of it outlives it
        )
        signal.signal(signal.SIGALRM, lambda *_: _stop(process))
        signal.setitimer(signal.ITIMER_REAL, limit, STOP_SECONDS)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(f"    {line}", end="", flush=True)
                stream.write(line)
            code = process.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _end(process)
    seconds = time.monotonic() - began
    try:
        if seconds >= limit:
            raise ValueError(f"stopped after {limit:.0f} s")
        if code != 0:
            raise ValueError(f"exit code {code}")
        section = parsed(output.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        last = " / ".join(line.strip() for line in log.read_text("utf-8").splitlines()[-LAST_LINES:] if line.strip())
        print(f"    failed: {reason}", flush=True)
        return Result(benchmark.name, told, seconds, None, f"{reason}. Its last lines: {last}")
    return Result(benchmark.name, told, seconds, section)


def _stop(process: subprocess.Popen[str]) -> None:
    """Its time is up: the first time it is asked to end, the second time it and all that it started are killed."""
    if process in _STOPPED:
        _kill(process)
    else:
        _STOPPED.add(process)
        process.terminate()


def _end(process: subprocess.Popen[str]) -> None:
    """End it, if it has not ended, and all that it started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    _kill(process)
    process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@click.command()
@click.option("--full", is_flag=True, help="Everything, as long as it takes; else a few minutes.")
@click.option("--only", multiple=True, type=click.Choice([each.name for each in BENCHMARKS]), help="These alone.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "build/bench", help="Folder of the report.")
def main(full: bool, only: tuple[str, ...], output: Path) -> None:
    """Run and report."""
    output.mkdir(parents=True, exist_ok=True)
    machine = {**facts(), "load before": load()}
    chosen = [each for each in BENCHMARKS if (each.name in only if only else full or each.in_quick)]
    results: list[Result] = []
    began = time.monotonic()
    mode = "full" if full else "quick"
    for number, benchmark in enumerate(chosen, 1):
        results.append(run(benchmark, output, full=full, place=f"{number}/{len(chosen)}"))
        report = write(output, mode, {**machine, "load after": load()}, results)
    failed = [each.name for each in results if each.section is None]
    print(f"\n{report} after {time.monotonic() - began:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
