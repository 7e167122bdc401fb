"""Measure what ``capacity.py`` computes with, on this machine: some eight minutes, and nothing else may run.

    python tests/bench/planning/record.py [--minutes 3] [--keep-profile]

The demo model is exported and served with one thread on the last CPU; everything else has the others. Written are
``demo-model-one-core.json``, the profile of ``rexstream tune``, and ``recorded.json``: the windows that the sample
reviews ask of the model, and the CPU that a worker takes for a review with all tasks: with that server behind it, and
with a simulated accelerator. Afterwards:

    python tests/bench/capacity.py --write
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import click
from apache_kafka import fetch_jars
from bench.growing.reviews import sample_reviews
from bench.growing.stage import ROOT, Stage
from bench.planning.plan import HERE, assumed_accelerator, measured_cpu

from consumer.batching.queue import padded_length
from consumer.cli.model_source import ModelSource, opened
from consumer.config.task_files import load_tasks
from consumer.offline import CALL_SECONDS, batches

if TYPE_CHECKING:
    from bench.planning.plan import ServerKind

    from consumer.cli.model_source import Session
    from consumer.extraction.window import Cells

TASKS: Final = ("product_features", "sentiment", "category")
MODEL: Final = "rexuninlu"
MOST_TOKENS: Final = 4_096
"""Of a call to one core: a third of a second."""
CHUNK: Final = 40
WORKER_SECONDS: Final = 60.0
REVIEWS: Final = 60_000
"""More than any does meanwhile."""


def windows(session: Session) -> list[list[list[int]]]:
    """Lengths of the windows of each level, for each sample review, all tasks together."""
    tasks = [load_tasks(())[name] for name in TASKS]
    texts = sample_reviews()
    found: list[list[list[int]]] = [[] for _ in texts]
    for start in range(0, len(texts), CHUNK):
        running = [
            (number, session.engine.start(texts[number], task))
            for number in range(start, min(start + CHUNK, len(texts)))
            for task in tasks
        ]
        level = 0
        while running := [each for each in running if not each[1].finished]:
            laid_out = [list(extraction.windows) for _, extraction in running]
            every = [window for each in laid_out for window in each]
            answers: dict[int, Cells] = {}
            for batch in batches([window.length for window in every]):
                rows = [every[index] for index in batch]
                length = padded_length(max(window.length for window in rows))
                answer = session.runner.run(session.client.predict(rows, length, CALL_SECONDS))
                answers.update(zip(batch, answer.cells, strict=True))
            place = 0
            for (number, extraction), own in zip(running, laid_out, strict=True):
                if level == len(found[number]):
                    found[number].append([])
                found[number][level] += [window.length for window in own]
                extraction.advance([answers[place + index] for index in range(len(own))])
                place += len(own)
            level += 1
    return found


def worker_cpu_ms(stage: Stage, kind: ServerKind, target: str) -> float:
    """Of one worker for a review with all tasks, with one server of this kind behind it that never rests."""
    topics = stage.topics(6)
    stage.fill(topics, sample_reviews(), REVIEWS)
    with stage.worker(topics, target, topics.input, kind.cost, max_tokens=kind.max_tokens, tasks=TASKS) as worker:
        stage.wait_for_results(topics, 1, worker)
        time.sleep(WORKER_SECONDS / 6)
        cpu, done = worker.cpu_seconds(), stage.results(topics)
        time.sleep(WORKER_SECONDS)
        reviews = (stage.results(topics) - done) / len(TASKS)
        if not reviews or stage.results(topics) >= REVIEWS * len(TASKS):
            raise RuntimeError(
                f"{reviews:.0f} reviews in {WORKER_SECONDS:.0f} s: the worker did not have work all the time"
            )
        return (worker.cpu_seconds() - cpu) / reviews * 1000


def processor() -> str:
    """Its name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


@click.command()
@click.option("--minutes", default=3.0, show_default=True, help="For the profile.")
@click.option("--keep-profile", is_flag=True, help="Measure all but the cost of calls.")
def main(minutes: float, keep_profile: bool) -> None:
    """Measure and write."""
    every = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version = folder / "models" / MODEL / "1"
        rexstream = [sys.executable, "-m", "consumer"]
        export = ["export", "--checkpoint", "deploy/demo-model", "--output", str(version.parent)]
        subprocess.run([*rexstream, *export, "--max-tokens", str(MOST_TOKENS)], cwd=ROOT, check=True)
        serve = ["serve", "--models", str(folder / "models"), "--port", "0", "--threads", "1", "--json"]
        server = subprocess.Popen(
            [*rexstream, *serve, "--exit-with-parent"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {max(every)}),
        )
        try:
            os.sched_setaffinity(0, every - {max(every)} or every)
            assert server.stdout is not None
            target = json.loads(server.stdout.readline())["address"]
            bundle = version / "bundle"
            tune = ["tune", "--server", target, "--bundle", str(bundle), "--minutes", str(minutes), "--longest", "1"]
            tune += ["--max-tokens", str(MOST_TOKENS), *(word for task in TASKS for word in ("--task", task))]
            profile = HERE / "demo-model-one-core.json"
            if not keep_profile:
                subprocess.run([*rexstream, *tune, "--out", str(profile)], cwd=ROOT, check=True)
            with opened(ModelSource(None, target, bundle, MODEL)) as session:
                levels = windows(session)
            (folder / "stage").mkdir()
            demo, assumed = measured_cpu(), assumed_accelerator()
            with Stage(fetch_jars(), folder / "stage", bundle) as stage:
                (simulated,) = stage.servers(1, assumed.cost)
                found = {
                    kind.name: worker_cpu_ms(stage, kind, at) for kind, at in ((demo, target), (assumed, simulated))
                }
        finally:
            server.terminate()
            server.wait()
    head = {
        "machine": processor(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "tasks": TASKS,
        "cpu_ms_per_review": {name: round(cpu_ms, 3) for name, cpu_ms in found.items()},
    }
    rows = ",\n".join(json.dumps(review, separators=(",", ":")) for review in levels)
    (HERE / "recorded.json").write_text(
        f'{json.dumps(head, ensure_ascii=False)[:-1]}, "reviews": [\n{rows}\n]}}\n', "utf-8"
    )
    asked = sum(len(level) for review in levels for level in review)
    print(f"CPU ms of a worker for a review: {head['cpu_ms_per_review']}; {asked} windows")


if __name__ == "__main__":
    main()
