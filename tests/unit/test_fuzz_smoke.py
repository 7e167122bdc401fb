"""A few thousand of the inputs that ``tests/fuzz/run.py`` makes by the million, always the same ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import fuzz_targets
import pytest
from click.testing import CliRunner
from fuzz_headers import slow_murmur2
from fuzz_targets import TARGETS, run_stretch, shares
from fuzzing import Target, Violation, input_of
from run import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

SEED = 11
WANTED = shares(3_000, list(TARGETS))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_what_must_not_happen(name: str) -> None:
    """Nothing but an outcome that is allowed, within its time."""
    tally = run_stretch(name, SEED, 0, WANTED[name])
    assert tally.violations == []
    assert tally.inputs == WANTED[name]
    assert len(tally.outcomes) > 1, "inputs of one kind find nothing"


def test_an_input_is_made_again_by_its_number() -> None:
    """Seed, target and number say all, whatever was made before."""
    for target in TARGETS.values():
        first = [repr(input_of(target, SEED, index)) for index in range(3)]
        assert repr(input_of(target, SEED, 2)) == first[2]
        assert len(set(first)) > 1


@pytest.mark.parametrize(
    "fault", [KeyError("x"), Violation("x"), RecursionError("x"), UnicodeDecodeError("a", b"", 0, 1, "")]
)
def test_what_must_not_happen_is_found(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Any exception but those that the target knows is a violation, with the number of its input."""

    def check(number: int) -> str:
        if number == 3:
            raise fault
        return "well"

    monkeypatch.setitem(fuzz_targets.TARGETS, "broken", _numbers(check))
    tally = run_stretch("broken", SEED, 0, 40)
    assert tally.violations
    assert all(type(fault).__name__ in what for _, what in tally.violations)
    assert all(input_of(fuzz_targets.TARGETS["broken"], SEED, index) == 3 for index, _ in tally.violations)


def test_an_input_that_takes_for_ever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the code under test takes every exception for bad input."""

    def check(_: int) -> str:
        while True:
            try:
                sum(range(1000))
            except Exception:
                return "bad input"

    monkeypatch.setattr(fuzz_targets, "LIMIT_SECONDS", 0.05)
    monkeypatch.setitem(fuzz_targets.TARGETS, "endless", _numbers(check))
    tally = run_stretch("endless", SEED, 0, 1)
    assert len(tally.violations) == 1
    assert "TooLong" in tally.violations[0][1]


def _numbers(check: Callable[[int], str]) -> Target:
    def make(random: Random) -> int:
        return random.randrange(5)

    return Target("numbers", 1, make, check)


def test_the_reference_hash_is_kafkas() -> None:
    """Pairs from Apache Kafka's own UtilsTest.testMurmur2."""
    for key, digest in ((b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)):
        assert slow_murmur2(key) == digest


def test_the_runner_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts as JSON; exit code 0 when all held, 1 when something did not, 2 for a target that does not exist."""
    record = tmp_path / "record.json"
    arguments = ["--only", "framing", "--only", "refusals", "--inputs", "400", "--seed", "3", "--record", str(record)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads(record.read_text("utf-8"))
    assert (told["seed"], told["inputs"], told["violations"]) == (3, 400, 0)
    assert sum(told["targets"]["framing"]["outcomes"].values()) == told["targets"]["framing"]["inputs"]
    assert CliRunner().invoke(main, ["--only", "no"]).exit_code == 2

    def check(value: bytes) -> str:
        raise KeyError(len(value))

    monkeypatch.setitem(fuzz_targets.TARGETS, "framing", replace(TARGETS["framing"], check=check))
    done = CliRunner().invoke(main, ["--only", "framing", "--inputs", "3", "--seed", "3"])
    assert done.exit_code == 1
    assert "--only framing --seed 3 --index 2" in done.stderr
    assert CliRunner().invoke(main, ["--only", "framing", "--seed", "3", "--index", "2"]).exit_code == 1
