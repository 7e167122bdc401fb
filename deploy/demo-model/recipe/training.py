"""The training loop: samples in, averaged weights out; interrupted and resumed at any step."""

from __future__ import annotations

import json
import math
import queue
import random
import signal
import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from recipe.network import circle_loss
from recipe.rows import DataError
from recipe.samples import LONGEST, Batch, batched, collate, corrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from recipe.network import RexUniNLU
    from recipe.samples import Layout, Sample

_POOL: Final = 1200
"""Samples that are drawn at once and sorted into batches."""
_AHEAD: Final = 6
"""Batches that are ready before they are needed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``training`` of ``recipe.yaml``; shares are of ``minutes``."""

    minutes: float
    tokens_per_batch: int
    learning_rate: float
    head_rate: float
    """Of the pointer head, as a multiple of ``learning_rate``: it starts from nothing."""
    warm_up: float
    decay_from: float
    floor: float
    weight_decay: float
    dropout: float
    masked: float
    averaged: float
    save_minutes: float
    validate_minutes: float


@dataclass(slots=True)
class Progress:
    """How far a training is; ``seconds`` without the time in which it was not running."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    round: int = 0
    """Pools drawn so far: each has a seed of its own, so that a resumed training does not draw the same again."""


def rate_at(share: float, settings: Settings) -> float:
    """Learning rate after this share of the time: rising, level, then a half cosine down to the floor."""
    if share < settings.warm_up:
        scale = max(share, 1e-3) / settings.warm_up
    elif share < settings.decay_from:
        scale = 1.0
    else:
        falling = min(1.0, (share - settings.decay_from) / (1 - settings.decay_from))
        scale = settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * falling))
    return settings.learning_rate * scale


class Prepared(NamedTuple):
    """A batch, the kinds of its samples, and the number of its pool."""

    batch: Batch
    kinds: list[str]
    round: int


class Supply:
    """Draws samples and lays out batches in a thread beside the training."""

    def __init__(
        self,
        makers: dict[str, Callable[[random.Random], Sample]],
        shares: dict[str, float],
        layout: Layout,
        settings: Settings,
        seed: int,
    ) -> None:
        self._kinds = [kind for kind in shares if kind in makers]
        self._shares = [shares[kind] for kind in self._kinds]
        self._makers, self._layout, self._settings, self._seed = makers, layout, settings, seed
        self._ready: queue.Queue[Prepared | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()

    def start(self, first_round: int) -> None:
        """Begin with pool ``first_round``."""
        threading.Thread(target=self._fill, args=(first_round,), daemon=True, name="samples").start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def next(self) -> Prepared:
        """The next batch. Raises what the thread has raised: DataError where the data make no sample."""
        prepared = self._ready.get(timeout=600)
        if isinstance(prepared, BaseException):
            raise prepared
        return prepared

    def pool(self, number: int) -> Iterator[Prepared]:
        """The batches of one pool: the same for the same seed and number. Raises DataError where all are too long."""
        rng = random.Random(f"{self._seed}/{number}")
        noise = np.random.default_rng([self._seed, number])
        drawn = (self._makers[kind](rng) for kind in rng.choices(self._kinds, self._shares, k=_POOL))
        samples = [sample for sample in drawn if sample.length <= LONGEST]
        if not samples:
            raise DataError(f"each of {_POOL} samples has more than {LONGEST} tokens: shorten the texts or the schema")
        tokenizer = self._layout.tokenizer
        mask = int(tokenizer.ids("[MASK]", special=True)[0])
        for chosen in batched(samples, self._settings.tokens_per_batch, rng):
            batch = collate(chosen, tokenizer.pad)
            text = np.diagonal(batch.legal, axis1=1, axis2=2) & (batch.ids < tokenizer.prefix)
            ids = corrupted(batch.ids, text, noise, self._settings.masked, mask)
            yield Prepared(batch._replace(ids=ids), [sample.kind for sample in chosen], number)

    def _fill(self, number: int) -> None:
        try:
            while not self._stopped.is_set():
                for prepared in self.pool(number):
                    while not self._stopped.is_set():
                        try:
                            self._ready.put(prepared, timeout=1)
                            break
                        except queue.Full:
                            continue
                number += 1
        except BaseException as error:
            self._ready.put(error)


class Training:
    """A model, its optimiser and averaged weights. ``state`` is where it is saved and resumed from."""

    def __init__(self, model: RexUniNLU, settings: Settings, state: Path, log: Callable[[str], None]) -> None:
        """Raises DataError where ``state`` is of another model."""
        self.model, self.settings, self._state, self._log = model, settings, state, log
        self.progress = Progress()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        heads = {id(parameter) for head in (model.ffnq, model.ffnk) for parameter in head.parameters()}
        groups = [
            {
                "params": [p for p in trained if (p.ndim > 1) == matrices and (id(p) in heads) == head],
                "weight_decay": settings.weight_decay if matrices else 0.0,
                "scale": settings.head_rate if head else 1.0,
            }
            for matrices in (True, False)
            for head in (True, False)
        ]
        self._trained = trained
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
        self.averaged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._stop = False
        if state.is_file():
            self._resume()

    def run(self, supply: Supply, validate: Callable[[], None]) -> bool:
        """Train until the time is over; False where SIGTERM or SIGINT has ended it before. Saves in both cases."""
        earlier = {number: signal.signal(number, self._stopping) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._run(supply, validate)
            self.save()
        finally:
            supply.stop()
            for number, handler in earlier.items():
                signal.signal(number, handler)
        return not self._stop

    def _run(self, supply: Supply, validate: Callable[[], None]) -> None:
        settings, progress = self.settings, self.progress
        supply.start(progress.round)
        torch.manual_seed(progress.round)
        losses: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=300))
        last = saved = validated = reported = time.monotonic()
        first_tokens, first_seconds = progress.tokens, progress.seconds
        while not self._stop and progress.seconds < 60 * settings.minutes:
            prepared = supply.next()
            for kind, loss in zip(prepared.kinds, self._step(prepared.batch), strict=True):
                losses[kind].append(loss)
            progress.round = prepared.round
            now = time.monotonic()
            progress.seconds += now - last
            last = now
            if now - reported > 30:
                speed = (progress.tokens - first_tokens) / max(1e-9, progress.seconds - first_seconds)
                means = " ".join(f"{kind} {fmean(values):.3f}" for kind, values in sorted(losses.items()))
                self._log(f"{self._position()} {speed:.0f} tokens/s | {means}")
                reported = now
            if now - saved > 60 * settings.save_minutes:
                self.save()
                last = saved = time.monotonic()
            if now - validated > 60 * settings.validate_minutes:
                validate()
                last = validated = time.monotonic()

    def save(self) -> None:
        """Write the whole state, atomically."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "optimizer": self._optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        unfinished = self._state.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self._state)

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self._state, weights_only=True)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise DataError(
                f"{self._state} is of a training of another shape or vocabulary; go on with its own options, or name "
                "another folder for this one"
            ) from error
        self._optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.progress = Progress(**state["progress"])
        self.progress.round += 1
        self._log(f"resumed at {json.dumps(asdict(self.progress))}")

    def _position(self) -> str:
        progress, minutes = self.progress, self.settings.minutes
        done = progress.seconds / 60
        return f"{done:.1f} of {minutes:g} min, step {progress.step}, {progress.tokens / 1e6:.2f} M tokens"

    def _stopping(self, *_: object) -> None:
        self._stop = True

    def _step(self, batch: Batch) -> list[float]:
        """One step; the loss of each sample."""
        settings, progress, model = self.settings, self.progress, self.model
        rate = rate_at(progress.seconds / (60 * settings.minutes), settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        ids, positions, segments = (torch.from_numpy(a).long() for a in (batch.ids, batch.positions, batch.segments))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, positions, segments, settings.dropout)
        losses = circle_loss(logits, torch.from_numpy(batch.wanted), torch.from_numpy(batch.legal))
        self._optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        progress.step += 1
        progress.tokens += batch.tokens
        decay = min(settings.averaged, (1 + progress.step) / (12 + progress.step))
        current = model.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.values()), [current[name] for name in self.averaged], 1 - decay)
        values: list[float] = losses.tolist()
        return values
