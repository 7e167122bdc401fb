"""The report of ``make bench``: what it says of benchmarks that measured, failed, hung, or are missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench.report import __main__ as runner
from bench.report.benchmarks import BENCHMARKS, Benchmark
from bench.report.document import Result, write
from bench.report.section import Goal, Plot, Section, Series, Table, parsed

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).parents[3]
MEASURED = Section(
    title="Loop",
    claim="It costs something.",
    columns=["what", "ratio", "calls"],
    rows=[["a|b", 0.61234, 12345], ["nothing", None, 3]],
    notes=["Two CPUs."],
    goals=[Goal("ratio >= 1", "0.61 (0.58 to 0.64)", met=False), Goal("long run", "-", met=None)],
    tables=[Table("Beside it", ["x"], [[1234.5]])],
    plots=[
        Plot("lines", "Rate", "workers", "events/s", [Series("a", [1.0, None], [0.5, None], [2.0, None])], [1.0, 2.0]),
        Plot("bars", "Ratio", "", "ratio", [Series("", [0.5, 1.5], [0.4, 1.0], [0.6, 2.0])], ["one", "two"]),
        Plot("points", "Cost", "characters", "ms", [Series("a", [1.0], x=[20.0])], log=True),
    ],
)


def test_the_report_has_every_benchmark_with_its_figures_or_its_reason(tmp_path: Path) -> None:
    """A failed one and one that cannot be measured here stand beside one that was."""
    results = [
        Result("loop", "python loop.py --quick", 12.3, MEASURED),
        Result("modes", "python modes.py --quick", 0.1, Section("Modes", not_measured="no Java")),
        Result("peers", "python peers.py --quick", 3.0, None, "exit code 1. Its last lines: boom"),
    ]
    (tmp_path / "old-1.png").write_bytes(b"")
    text = write(tmp_path, "quick", {"CPUs": "2"}, results).read_text("utf-8")
    assert "| loop | ratio >= 1 | 0.61 (0.58 to 0.64) | **no** |" in text
    assert "| loop | long run | - | not in this run |" in text
    assert "| peers | – | not measured | – |" in text
    assert "- **modes**: no Java" in text
    assert "- **peers**: exit code 1. Its last lines: boom" in text
    assert "| a\\|b | 0.612 | 12 345 |" in text
    assert "| 1234 |" in text
    assert "| CPUs | 2 |" in text
    assert "python loop.py --quick" in text
    shown = re.findall(r"\]\((.*?\.png)\)", text)
    assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png")) == [f"loop-{n}.png" for n in (1, 2, 3)]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in shown)
    whole = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [each["name"] for each in whole["benchmarks"]] == ["loop", "modes", "peers"]
    assert whole["benchmarks"][0]["section"]["rows"][0][1] == 0.61234
    assert whole["benchmarks"][2]["failed"].startswith("exit code 1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"claim": ""}, "claim"),
        ({"clam": "mistyped"}, "clam"),
        ({"rows": [["a", 1]]}, "3 columns"),
        ({"plots": [{**json.loads('{"kind": "pie", "title": "", "xlabel": "", "ylabel": "", "series": []}')}]}, "kind"),
        (
            {
                "plots": [
                    {
                        "kind": "lines",
                        "title": "t",
                        "xlabel": "",
                        "ylabel": "",
                        "x": [1, 2],
                        "series": [{"name": "s", "y": [1]}],
                    }
                ]
            },
            "2 values",
        ),
    ],
)
def test_a_section_that_breaks_the_contract_is_refused(change: dict[str, Any], reason: str) -> None:
    """With the place, so that its author finds it."""
    whole = {"title": "t", "claim": "c", "columns": ["a", "b", "c"], "rows": []}
    parsed(json.dumps(whole))
    with pytest.raises(ValueError, match=reason):
        parsed(json.dumps({**whole, **change}))


PROGRAMS = {
    "measures": 'pathlib.Path(sys.argv[-1]).write_text(\'{"title": "t", "claim": "c"}\')',
    "breaks": "print('before the end'); sys.exit('out of paper')",
    "writes nothing": "pass",
    "writes nonsense": "pathlib.Path(sys.argv[-1]).write_text('{\"title\": 1}')",
    "hangs": "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('waiting', flush=True); time.sleep(600)",
}


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("measures", ""),
        ("breaks", "exit code 1. Its last lines: before the end / out of paper"),
        ("writes nothing", "No such file or directory"),
        ("writes nonsense", "title: Input should be a valid string"),
        ("hangs", "stopped after 1 s"),
        ("is missing", "there is no tests/bench/is missing.py"),
    ],
)
def test_a_benchmark_is_a_section_or_a_reason(
    name: str, failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does, the next one is run."""
    (tmp_path / "tests/bench").mkdir(parents=True)
    if name in PROGRAMS:
        program = f"import pathlib, signal, sys, time\n{PROGRAMS[name]}\n"
        (tmp_path / "tests/bench" / f"{name}.py").write_text(program)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "STOP_SECONDS", 0.2)
    seconds = 1.0 if name == "hangs" else 60.0
    result = runner.run(Benchmark("it", f"{name}.py", seconds, seconds), tmp_path, full=False, place="1/1")
    assert result.failed.startswith(failed)
    assert (result.section is None) == bool(failed)
    assert result.command.endswith("--quick")


def test_every_benchmark_is_in_the_report() -> None:
    """Under a name of its own. Precision is a question of results, not of speed."""
    programs = {path.name for path in (ROOT / "tests/bench").glob("*.py")} - {"precision.py"}
    assert programs <= {each.program for each in BENCHMARKS}
    assert len({each.name for each in BENCHMARKS}) == len(BENCHMARKS)
