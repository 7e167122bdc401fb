"""What was seen of a group while it was scaled, second by second, and a picture of it."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Sample(NamedTuple):
    """One moment."""

    seconds: float
    lag: int
    wanted: int
    """Replicas that the Deployment is to have."""
    running: int
    """Worker processes."""
    committed: int
    """Sum of the group's offsets."""


class Recording:
    """Samples every second in a thread of its own. A context manager."""

    def __init__(self, sample: Callable[[], tuple[int, int, int, int]]) -> None:
        """``sample`` gives lag, wanted, running and committed."""
        self.samples: list[Sample] = []
        self.marks: list[tuple[float, str]] = []
        self.error: BaseException | None = None
        self._sample = sample
        self._begin = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    def mark(self, text: str) -> None:
        """Something happened now."""
        self.marks.append((self.now(), text))

    def until(self, reached: Callable[[Sample], bool], seconds: float) -> Sample:
        """The first sample from now on for which it is so. Raises AssertionError with the last ones."""
        begin = time.monotonic()
        seen = len(self.samples)
        while time.monotonic() < begin + seconds:
            assert self.error is None, self.error
            for sample in self.samples[seen:]:
                if reached(sample):
                    return sample
            seen = len(self.samples)
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds:.0f} s: {self.samples[-5:]}")

    def watch(self, seconds: float) -> list[Sample]:
        """The samples of so many seconds from now on."""
        seen = len(self.samples)
        time.sleep(seconds)
        assert self.error is None, self.error
        return self.samples[seen:]

    def _run(self) -> None:
        try:
            while not self._stopped.wait(1.0):
                self.samples.append(Sample(self.now(), *self._sample()))
        except BaseException as error:  # the test reads it
            self.error = error

    def save(self, folder: Path) -> None:
        """``scaling.json`` and ``scaling.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"samples": [sample._asdict() for sample in self.samples], "marks": self.marks}
        (folder / "scaling.json").write_text(json.dumps(content), encoding="utf-8")
        draw(self.samples, self.marks, folder / "scaling.png")


def draw(samples: list[Sample], marks: list[tuple[float, str]], path: Path) -> None:
    """Lag, workers and records a second (over ten seconds), one above the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    seconds = [sample.seconds for sample in samples]
    figure, (lag, workers, rate) = plt.subplots(3, 1, sharex=True, figsize=(10, 6.5), height_ratios=(3, 2, 2))
    lag.plot(seconds, [sample.lag for sample in samples], color="tab:red")
    lag.set_ylabel("lag, records")
    workers.step(seconds, [sample.wanted for sample in samples], where="post", label="replicas of the Deployment")
    workers.step(
        seconds, [sample.running for sample in samples], where="post", label="running processes", linestyle="--"
    )
    workers.set_ylabel("workers")
    workers.set_yticks(range(5))
    workers.set_ylim(0, 6)
    workers.legend(loc="upper left", fontsize=8)
    before = [samples[max(0, place - 10)] for place in range(len(samples))]
    speed = [
        (now.committed - then.committed) / max(1.0, now.seconds - then.seconds)
        for now, then in zip(samples, before, strict=True)
    ]
    rate.plot(seconds, speed, color="tab:green")
    rate.set_ylabel("records a second")
    rate.set_xlabel("seconds")
    for number, (second, text) in enumerate(marks):
        for axes in (lag, workers, rate):
            axes.axvline(second, color="grey", linewidth=0.8, linestyle=":")
        late = second > 0.8 * seconds[-1]
        height = lag.get_ylim()[1] * (0.97 - 0.09 * (number % 4))
        lag.text(second, height, f" {text} ", fontsize=7, va="top", ha="right" if late else "left")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
