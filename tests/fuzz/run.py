"""Feed the decoders and the engine random and damaged input, and see that nothing happens that must not.

python tests/fuzz/run.py --inputs 1000000 --seed 1
python tests/fuzz/run.py --only json --seed 1 --index 4711      one input, with what it raises
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import secrets
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import click

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from fuzz_targets import TARGETS, Tally, run_stretch, shares  # noqa: E402 - the path comes first
from fuzzing import input_of  # noqa: E402

STRETCH = 2_000
SHOWN = 5


@click.command()
@click.option("--inputs", type=click.IntRange(min=1), default=100_000, show_default=True, help="Over all targets.")
@click.option("--seed", type=int, help="Same seed, same inputs; default: a new one.")
@click.option("--only", multiple=True, type=click.Choice(sorted(TARGETS)), help="These targets alone.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--index", type=click.IntRange(min=0), help="Feed this one input of --only, and show it.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write the counts there, as JSON.")
def main(
    inputs: int, seed: int | None, only: tuple[str, ...], processes: int, index: int | None, record: Path | None
) -> None:
    """Run all targets. Exit code 1 when something did not hold for some input; each is printed with its number."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    names = [name for name in TARGETS if not only or name in only]
    if index is not None:
        if len(only) != 1:
            raise click.UsageError("--index needs one target: --only NAME")
        _show(only[0], seed, index)
        return
    started = time.monotonic()
    tallies = _run(names, inputs, seed, processes)
    outcome = {
        "seed": seed,
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "violations": sum(len(tally.violations) for tally in tallies.values()),
        "seconds": round(time.monotonic() - started, 1),
        "python": platform.python_version(),
        "targets": {
            name: {
                "inputs": tally.inputs,
                "violations": len(tally.violations),
                "cpu_seconds": round(tally.cpu, 1),
                "slow": tally.slow,
                "longest_ms": round(tally.longest * 1000, 1),
                "outcomes": dict(tally.outcomes.most_common()),
            }
            for name, tally in tallies.items()
        },
    }
    click.echo(json.dumps(outcome, ensure_ascii=False))
    if record is not None:
        record.write_text(json.dumps(outcome, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if outcome["violations"] else 0)


def _run(names: list[str], inputs: int, seed: int, processes: int) -> dict[str, Tally]:
    tallies = {name: Tally() for name in names}
    wanted = shares(inputs, names)
    click.echo(f"seed {seed}: {sum(wanted.values())} inputs for {len(names)} targets", err=True)
    stretches = [
        (name, first, min(first + STRETCH, count))
        for name, count in wanted.items()
        for first in range(0, count, STRETCH)
    ]

    def done(name: str, tally: Tally) -> None:
        total = tallies[name]
        told = len(total.violations)
        total.add(tally)
        for number, what in total.violations[told:][: max(0, SHOWN - told)]:
            click.echo(f"VIOLATION {name}: {what}", err=True)
            click.echo(f"  again: python tests/fuzz/run.py --only {name} --seed {seed} --index {number}", err=True)
        if total.inputs == wanted[name]:
            kinds = ", ".join(f"{kind} {count}" for kind, count in total.outcomes.most_common(4))
            click.echo(f"{name:<15} {total.inputs:>8} inputs {total.cpu:>7.1f} s  {kinds}", err=True)

    if processes == 1:
        for name, first, last in stretches:
            done(name, run_stretch(name, seed, first, last))
        return tallies
    # Fresh interpreters: the tokenizer's and gRPC's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_stretch, name, seed, first, last): name for name, first, last in stretches}
        for future in as_completed(futures):
            done(futures[future], future.result())
    return tallies


def _show(name: str, seed: int, index: int) -> None:
    body = input_of(TARGETS[name], seed, index)
    click.echo(repr(body)[:20_000])
    try:
        click.echo(f"outcome: {TARGETS[name].check(body)}")
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
