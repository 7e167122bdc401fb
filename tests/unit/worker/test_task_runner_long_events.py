"""A few batches of an event's windows at a time: what that does to others, to itself, and to results and memory."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import virtual_time
from cells import cells_of
from stub_model import StubModel, engine, stub_cells

from consumer.batching.policy import ASSUMED, LeastTime
from consumer.batching.queue import EventShare
from consumer.events import Place, SourceRecord
from consumer.extraction.engine import Engine, Extraction
from consumer.extraction.task import Task
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.serving.refused import WindowRefused
from consumer.telemetry.metrics import Metrics
from consumer.worker import task_runner
from consumer.worker.task_runner import TaskRunner, WorkBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.extraction.task import Extracted
    from consumer.extraction.window import Cells, Window

MAX_TOKENS, CALLS = 16_384, 2
EVENT_TOKENS = MAX_TOKENS * (CALLS + 1)
ENGINE = engine()
CHANCE = random.Random(11)
HAN = [chr(0x4E00 + number) for number in range(3000)]
LONG = "".join(CHANCE.choices(HAN, k=20_000))
REVIEW = Task("review", "extract", {"物": {"优点": None, "缺点": None}})
MANY = Task(
    "many", "extract", dict.fromkeys(f"{number:03}{''.join(CHANCE.choices(HAN, k=40))}" for number in range(90))
)


class TimedModel(StubModel):
    """A call takes 0.1 s; ``called`` keeps the rows and padded tokens of each."""

    def __init__(self, cells: Callable[[Window], object] = stub_cells) -> None:
        super().__init__()
        self.cells = cells
        self.called: list[tuple[int, int]] = []
        self.overflow = False

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:  # noqa: ARG002
        self.called.append((len(windows), len(windows) * padded_length))
        await asyncio.sleep(self.seconds())
        if (error := self.fail(windows)) is not None:
            raise error
        overflowed = tuple(range(len(windows))) if self.overflow else ()
        cells = tuple(map(self.cells, windows))
        return Answer(cells, "stub", self.version, "serving_default", 0.1, overflowed)  # type: ignore[arg-type]

    def seconds(self) -> float:
        return 0.1


class Workplace:
    """A task runner before a model, in virtual time."""

    def __init__(self, model: StubModel, budget_bytes: int = 200_000_000) -> None:
        clock = asyncio.get_running_loop().time
        window = ENGINE.start("好", REVIEW).windows[0]
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            {"one:1": model}, LeastTime(MAX_TOKENS, CALLS), window, "stub", self.metrics, lambda *_: None, clock
        )
        self.budget = WorkBudget(budget_bytes)
        self.runner = TaskRunner(
            ENGINE,
            self.dispatcher,
            {"in": self.budget},
            event_tokens=EVENT_TOKENS,
            share=EventShare(MAX_TOKENS, 1.0, 1.0),
            over_share=self.metrics.window_over_share,
            clock=clock,
        )
        self._clock = clock

    async def extract(self, number: int, text: str, *tasks: Task) -> list[Extracted]:
        record = SourceRecord("in", 0, number, 1, None, text.encode(), (), 1000, 0.0)
        work = await self.budget.enter(number, record)
        work.deadline = self._clock() + 1.0
        try:
            results = await asyncio.gather(*(self.runner.infer(text, task, work) for task in tasks))
        finally:
            assert work.place == Place.of(record)
            self.budget.leave(work)
        assert (work.tokens, work.used) == (0, 32 * len(record.value or b""))
        return [each.extracted for each in results]


def run(model: StubModel, body: Callable[[Workplace], Awaitable[None]], budget_bytes: int = 200_000_000) -> None:
    async def main() -> None:
        place = Workplace(model, budget_bytes)
        pump = asyncio.create_task(place.dispatcher.pump())
        try:
            await body(place)
        finally:
            pump.cancel()
        queue = place.budget.queue
        assert (queue.free, queue.growing, queue.waiting, queue.works) == (budget_bytes, 0, [], {})
        assert place.runner._unread == 0

    virtual_time.run(main())


def direct(text: str, task: Task, cells: Callable[[Window], object] = stub_cells) -> Extracted:
    """Without a runner: all windows of a level at once."""
    extraction = ENGINE.start(text, task)
    while not extraction.finished:
        extraction.advance([cells(window) for window in extraction.windows])  # type: ignore[misc]
    return extraction.result()


def test_reviews_that_come_after_a_long_event_wait_for_a_few_batches_of_it() -> None:
    """On each of their two levels for the calls of it that are under way; its other windows come after the reviews."""
    model = TimedModel()
    assert len(ENGINE.start(LONG, MANY).windows) > 1000

    async def body(place: Workplace) -> None:
        long = asyncio.create_task(place.extract(0, LONG, MANY))
        await asyncio.sleep(0.05)
        before = len(model.called)
        reviews = [asyncio.create_task(place.extract(1 + n, f"袋口封得严实{n}", REVIEW)) for n in range(200)]
        await asyncio.gather(*reviews)
        later = model.called[before:]
        assert sum(rows for rows, tokens in later if tokens / rows < 100) == 2 * 200
        assert sum(tokens for rows, tokens in later if tokens / rows >= 100) < 2 * MAX_TOKENS
        assert not long.done()
        (extracted,) = await long
        assert extracted == direct(LONG, MANY)

    run(model, body)


def test_what_a_long_event_sends_is_due_behind_what_waits_of_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what others have to let pass would grow with the number of such events."""
    deadlines: list[float] = []
    latest: list[float] = []
    deadline = EventShare.deadline

    def noted(*args: Any) -> float:
        deadlines.append(deadline(*args))
        return deadlines[-1]

    async def body(place: Workplace) -> None:
        monkeypatch.setattr(EventShare, "deadline", noted)
        events = []
        for number in range(2):
            events.append(asyncio.create_task(place.extract(number, LONG, MANY)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            latest.append(deadlines[-1])
        for event in events:
            event.cancel()
        await asyncio.wait(events)

    run(TimedModel(), body)
    assert latest[0] > 3.0
    assert latest[1] > latest[0] + 0.5


def test_a_lone_long_event_fills_calls_that_are_worth_it() -> None:
    """As if all its windows were there at once: after the first one they are as large as costs it a tenth at most."""
    model = TimedModel()

    async def body(place: Workplace) -> None:
        await place.extract(0, LONG, MANY)

    run(model, body)
    called = [tokens for _, tokens in model.called]
    worthwhile = min(MAX_TOKENS, ASSUMED.worthwhile_tokens())
    assert max(called) > 0.9 * MAX_TOKENS
    assert sum(tokens for tokens in called if tokens > 0.8 * worthwhile) > 0.9 * sum(called)


def test_the_windows_of_all_its_tasks_count_together() -> None:
    """Ten tasks have no more at the dispatcher than one, and one window each beside."""
    model = TimedModel()
    tasks = [Task(f"t{n}", "extract", {f"物{n}": None}) for n in range(10)]

    async def body(place: Workplace) -> None:
        event = asyncio.create_task(place.extract(0, LONG, *tasks))
        most = 0
        while not event.done():
            await asyncio.sleep(0.1)
            works = [work for each in place.budget.queue.works.values() for work in each.values()]
            most = max([most, *(work.tokens for work in works)])
        assert EVENT_TOKENS - 512 < most < EVENT_TOKENS + 10 * 512

    run(model, body)


@pytest.mark.parametrize("seed", range(6))
def test_results_do_not_depend_on_the_order_of_answers_or_on_the_budget(seed: int) -> None:
    """Calls end in any order, and there is room for one event at a time: the same results, and all is given back."""
    chance = random.Random(seed)
    model = TimedModel()
    model.seconds = lambda: chance.random()  # type: ignore[method-assign]
    texts = ["".join(chance.choices(HAN, k=chance.choice((30, 700, 4000)))) for _ in range(12)]
    feelings = Task("f", "multi_classify", {"喜欢": {"很": None}, "不喜欢": None})

    async def body(place: Workplace) -> None:
        found = await asyncio.gather(
            *(place.extract(number, text, REVIEW, MANY, feelings) for number, text in enumerate(texts))
        )
        assert found == [[direct(text, task) for task in (REVIEW, MANY, feelings)] for text in texts]

    run(model, body, budget_bytes=chance.choice((1_000, 400_000, 3_000_000)))


def test_answers_of_many_cells_that_cannot_be_read_yet_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are up to 1.5 MB each, and wait for those before them."""
    monkeypatch.setattr(task_runner, "UNREAD_BYTES", 50_000)

    def many_cells(window: Window) -> object:
        start, end = window.text_start, window.length - 1
        cells = dict.fromkeys([(row, end - 1) for row in range(start, end)], 0.5)
        few = stub_cells(window)
        return cells_of(cells | {(int(r), int(c)): float(v) for r, c, v in zip(*few, strict=True)})

    model = TimedModel(many_cells)
    model.overflow = True
    chance = random.Random(2)
    model.seconds = lambda: chance.random()  # type: ignore[method-assign]

    async def body(place: Workplace) -> None:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, place.runner._unread)
                await asyncio.sleep(0.01)

        watcher = asyncio.create_task(watch())
        (extracted,) = await place.extract(0, LONG, MANY)
        watcher.cancel()
        assert extracted == direct(LONG, MANY, many_cells)
        assert 0 < most < 50_000 + 7_000
        assert sum(rows for rows, _ in model.called) > extracted.model_calls

    run(model, body)


def test_answers_of_many_cells_are_not_held_by_events_that_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the next answer, nor the one that was read last, nor the one that classification may need again."""
    monkeypatch.setattr(task_runner, "UNREAD_BYTES", 50_000)
    live = 0

    def died(size: int) -> None:
        nonlocal live
        live -= size

    def many_cells(window: Window) -> Cells:
        nonlocal live
        start, end = window.text_start, window.length - 1
        cells = cells_of(dict.fromkeys([(row, end - 1 - n) for row in range(start, end - 2) for n in range(2)], 0.5))
        for array in {id(each): each for each in (each if each.base is None else each.base for each in cells)}.values():
            live += array.nbytes
            weakref.finalize(array, died, array.nbytes)
        return cells

    model = TimedModel(many_cells)
    model.overflow = True
    chance = random.Random(5)
    slow = "".join(chance.choices(HAN, k=100))
    feelings = Task("f", "multi_classify", {"喜欢": {"很": None}, "不喜欢": None})
    predict, is_late = model.predict, asyncio.Event()

    async def late(windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        if padded_length < 140:
            await is_late.wait()
        return await predict(windows, padded_length, timeout)

    monkeypatch.setattr(model, "predict", late)

    async def body(place: Workplace) -> None:
        oldest = asyncio.create_task(place.extract(0, slow, REVIEW))
        await asyncio.sleep(1)
        texts = ["".join(chance.choices(HAN, k=500)) for _ in range(20)]
        others = [
            asyncio.create_task(place.extract(n, text, feelings, REVIEW, MANY)) for n, text in enumerate(texts, 1)
        ]
        await asyncio.sleep(900)
        assert place.budget.queue.growing >= 20
        assert live < 50_000 + 20_000
        is_late.set()
        await oldest
        assert await others[0] == [direct(texts[0], task, many_cells) for task in (feelings, REVIEW, MANY)]
        for other in others[1:]:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    run(model, body, budget_bytes=2_500_000)


def test_a_refused_window_gives_everything_back() -> None:
    """Of a long event whose other windows are under way."""
    model = TimedModel()
    bad = ENGINE.start(LONG, MANY).windows[40].input_ids.tobytes()
    rejected = ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "indices[0] is out of range")
    model.fail = lambda windows: rejected if any(each.input_ids.tobytes() == bad for each in windows) else None

    async def body(place: Workplace) -> None:
        with pytest.raises(WindowRefused):
            await place.extract(0, LONG, MANY)

    run(model, body)


def test_a_cancelled_event_gives_everything_back() -> None:
    """Its partition was revoked."""

    async def body(place: Workplace) -> None:
        event = asyncio.create_task(place.extract(0, LONG, MANY, REVIEW))
        await asyncio.sleep(0.25)
        event.cancel()
        with pytest.raises(asyncio.CancelledError):
            await event

    run(TimedModel(), body)


def test_another_version_in_the_middle_starts_a_long_event_again() -> None:
    """One result never mixes models."""
    model = TimedModel()

    async def body(place: Workplace) -> None:
        event = asyncio.create_task(place.extract(0, LONG, MANY))
        await asyncio.sleep(0.5)
        model.version = "2"
        (extracted,) = await event
        assert extracted == direct(LONG, MANY)

    run(model, body)


def test_an_attempt_is_gone_before_the_next_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are given back, and the next one may wait for memory."""
    model = TimedModel()
    others: list[int] = []
    start = Engine.start

    def there() -> int:
        return sum(type(each) is Extraction for each in gc.get_objects())

    def counted(*its: Any) -> Extraction:
        others.append(there() - before)
        return start(*its)

    async def body(place: Workplace) -> None:
        event = asyncio.create_task(place.extract(0, LONG, MANY))
        await asyncio.sleep(0.5)
        model.version = "2"
        await event
        assert others == [0, 0, 0], "before the probe window's, and before both attempts"

    monkeypatch.setattr(Engine, "start", counted)
    gc.collect()
    before = there()  # what earlier tests of this process hold
    run(model, body)


def test_an_event_begins_again_once_at_most_where_servers_have_different_versions() -> None:
    """As in a rollout: its second level goes to a server of the version that answered the first one."""

    async def body(place: Workplace) -> None:
        other = TimedModel()
        other.version = "another"
        place.dispatcher.resolved(["one:1", "two:1"], lambda _: other)
        await asyncio.sleep(1)

        async def restarts(number: int) -> int:
            await asyncio.sleep(number * 0.03)
            record = SourceRecord("in", 0, number, 1, None, b"", (), 1000, 0.0)
            work = await place.budget.enter(number, record)
            found = await place.runner.infer(LONG[number : number + 300], REVIEW, work)
            place.budget.leave(work)
            return found.restarts

        found = await asyncio.gather(*(restarts(number) for number in range(60)))
        assert sum(found) <= 3, "those that came before both versions were seen"

    run(TimedModel(), body)
