"""The measurements of ``tune``, in virtual time against servers that take as long as a formula says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import virtual_time
from stub_model import StubModel, engine

from consumer.cli.load_test import AT_ONCE, MOST_REPEATS, AtOnce, Grid, LoadTest, VersionChanged, sampled
from consumer.cli.model_source import Session
from consumer.extraction.task import Task
from consumer.offline import Driver, Unanswered
from consumer.serving.protocol import Answer, Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from consumer.extraction.window import Window

TASK = Task("features", "extract", {"属性词": {"正向情感(情感词)": None}})
ENGINE = engine()
WINDOWS = [ENGINE.start("屏幕很清晰" * times, TASK).windows[0] for times in (1, 4, 12)]
BUSY = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", Relief.FEWER_IN_FLIGHT)
OOM = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "OOM when allocating", Relief.SMALLER_MEMORY)
GONE = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "connection refused")


class Server:
    """Computes ``processors`` calls at a time, each in ``seconds(rows, length)``; ``fail`` may name an error."""

    def __init__(self, seconds: Callable[[int, int], float], processors: int = 1) -> None:
        self.seconds = seconds
        self.processors = processors
        self.calls: list[tuple[int, int]] = []
        self.fail: Callable[[int, int], ServingError | None] = lambda _rows, _length: None
        self.version = "1"
        self.under_way = 0
        self.longest: list[int] = []
        self._free: asyncio.Semaphore | None = None

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        assert timeout >= 30
        shape = len(windows), padded_length
        self.calls.append(shape)
        self.longest.append(max(window.length for window in windows))
        if (error := self.fail(*shape)) is not None:
            raise error
        self._free = self._free or asyncio.Semaphore(self.processors)
        started = asyncio.get_running_loop().time()
        self.under_way += 1
        async with self._free:
            await asyncio.sleep(self.seconds(*shape))
        self.under_way -= 1
        return Answer((), "m", self.version, "serving_default", asyncio.get_running_loop().time() - started)

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def linear(rows: int, length: int) -> float:
    return 0.01 + 1e-4 * rows * length


def run(work: Callable[[LoadTest, float], Coroutine[Any, Any, Any]], server: Server, longest: float = 2.0) -> Any:
    """``work`` with a load test and the time at which it began."""

    async def inside() -> Any:
        clock = asyncio.get_running_loop().time
        return await work(LoadTest(server, WINDOWS, longest, lambda _: None, clock), clock())

    return virtual_time.run(inside())


def grid(
    server: Server, shapes: Sequence[tuple[int, int]], seconds: float = 1000.0, longest: float = 2.0
) -> tuple[Grid, tuple[str, str] | None]:
    async def work(test: LoadTest, now: float) -> Any:
        return await test.grid(shapes, now + seconds), test.model

    found: tuple[Grid, tuple[str, str] | None] = run(work, server, longest)
    return found


def at_once(server: Server, seconds: float = 1000.0) -> AtOnce:
    async def work(test: LoadTest, now: float) -> AtOnce:
        return await test.at_once(2, 64, server.seconds(2, 64), now + seconds)

    found: AtOnce = run(work, server)
    return found


class TestGrid:
    def test_each_shape_is_warmed_up_and_then_called_again_and_again(self) -> None:
        """The first call does not count; all shapes have a first one before any has a second."""
        server = Server(linear)
        slow = iter([9.0])
        server.seconds = lambda rows, length: next(slow, linear(rows, length))
        found, model = grid(server, [(1, 64), (2, 64)])
        assert [(cell.rows, cell.length) for cell in found.cells] == [(1, 64), (2, 64)]
        assert [cell.repeats for cell in found.cells] == [
            pytest.approx((linear(cell.rows, 64),) * MOST_REPEATS) for cell in found.cells
        ]
        assert server.calls[:6] == [(1, 64), (1, 64), (2, 64), (2, 64), (1, 64), (2, 64)]
        assert (found.left_out, model) == ((), ("m", "1"))

    def test_windows_are_the_longest_that_fit(self) -> None:
        """Those of the padded length itself, or else shorter ones that are padded up to it."""
        server = Server(linear)
        lengths = [window.length for window in WINDOWS]
        grid(server, [(3, 32), (1, 96), (2, 512)], 0.0)
        assert lengths[0] <= 32 < lengths[2] <= 96
        assert server.longest[:2] == [max(length for length in lengths if length <= 32)] * 2
        grid(server, [(2, 512)])
        assert server.longest[-1] == lengths[2]

    def test_what_is_expected_to_take_too_long_is_left_out(self) -> None:
        """By the fit of the shapes before it: 32,768 tokens are 3.28 s, and a call 10 ms."""
        server = Server(linear)
        shapes = [(rows, 64) for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
        found, _ = grid(server, shapes)
        assert [cell.rows for cell in found.cells] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
        assert found.left_out == ((512, 64, "expected to take 3.3 s"),)
        assert (512, 64) not in server.calls
        early, _ = grid(server, [(1, 64), (512, 64)])  # too few shapes for a fit: as tokens grow
        assert early.left_out == ((512, 64, "expected to take 8.4 s"),)

    def test_the_time_bounds_it(self) -> None:
        """The first round has half of it, so that what was called is called twice more."""
        server = Server(lambda rows, _: rows * 1.0)
        found, _ = grid(server, [(rows, 64) for rows in range(1, 8)], 24.0, longest=100.0)
        assert [(cell.rows, len(cell.repeats)) for cell in found.cells] == [(1, 3), (2, 3), (3, 3)]
        assert {(each.rows, each.why) for each in found.left_out} == {
            (rows, "the time was up") for rows in (4, 5, 6, 7)
        }

    def test_one_shape_is_measured_even_without_time(self) -> None:
        """A profile needs a cell."""
        found, _ = grid(Server(linear), [(1, 64), (2, 64)], -1.0)
        assert [(cell.rows, len(cell.repeats)) for cell in found.cells] == [(1, 1)]

    def test_a_call_that_is_too_large_for_the_server_ends_growth(self) -> None:
        """No larger one is tried, whose failure may cost the server more than an answer."""
        server = Server(linear)
        server.fail = lambda rows, length: OOM if rows * length >= 256 else None
        found, _ = grid(server, [(1, 64), (2, 64), (4, 64), (2, 128), (8, 64)])
        assert [cell.rows for cell in found.cells] == [1, 2]
        assert [each.why for each in found.left_out] == [
            "too large for the server (RESOURCE_EXHAUSTED)",
            *["a smaller call was already too large for the server"] * 2,
        ]
        assert server.calls.count((4, 64)) == 1

    def test_a_busy_server_is_asked_again(self) -> None:
        """Its answer counts, and the refusals before do not."""
        server = Server(linear)
        errors = iter([BUSY, BUSY])
        server.fail = lambda _rows, _length: next(errors, None)
        found, _ = grid(server, [(1, 64)], 0.0)
        assert found.cells[0].repeats == pytest.approx((linear(1, 64),))

    def test_a_server_that_others_keep_busy_is_named_so(self) -> None:
        """With the call that was refused."""
        server = Server(linear)
        server.fail = lambda _rows, _length: BUSY
        with pytest.raises(Unanswered, match=r"sent 1 x 64 tokens, one call at a time: others keep it busy"):
            grid(server, [(1, 64)])

    def test_a_server_that_goes_away_ends_it(self) -> None:
        """At once: what is measured on its successor belongs to another run."""
        server = Server(linear)
        server.fail = lambda rows, _: GONE if rows == 2 else None
        with pytest.raises(Unanswered, match="UNAVAILABLE: connection refused; it was sent 2 x 64 tokens"):
            grid(server, [(1, 64), (2, 64)])

    def test_another_version_ends_it(self) -> None:
        """Two models in one profile describe neither."""
        server = Server(linear)

        def roll_out(rows: int, _: int) -> None:
            server.version = str(rows)

        server.fail = roll_out
        with pytest.raises(VersionChanged, match="from version 1 to 2 while it was measured"):
            grid(server, [(1, 64), (2, 64)])


class TestAtOnce:
    def test_a_server_of_two_processors_shows(self) -> None:
        """Twice the calls with two in flight, and no more with eight."""
        found = at_once(Server(linear, processors=2))
        assert tuple(found.passes) == AT_ONCE
        alone = 1 / linear(2, 64)
        for number, rates in found.passes.items():
            assert rates == pytest.approx([min(number, 2) * alone] * 3, rel=0.06)

    def test_each_number_is_measured_even_without_time(self) -> None:
        """Once, with two calls for each in flight."""
        server = Server(linear)
        found = at_once(server, 0.0)
        assert {number: len(rates) for number, rates in found.passes.items()} == dict.fromkeys(AT_ONCE, 1)
        assert len(server.calls) == 2 * sum(AT_ONCE)

    def test_what_the_server_refuses_is_left_out(self) -> None:
        """With the reason; fewer calls at once are measured on."""
        server = Server(linear)
        server.fail = lambda _rows, _length: BUSY if server.under_way == 3 else None
        found = at_once(server)
        assert {number: len(rates) for number, rates in found.passes.items()} == {1: 3, 2: 3, 3: 3}
        assert found.refused == "4 at once were refused (RESOURCE_EXHAUSTED)"

    @pytest.mark.parametrize(("error", "at"), [(BUSY, 0), (GONE, 1)])
    def test_a_server_that_answers_nothing_ends_it(self, error: ServingError, at: int) -> None:
        """Refused alone, or gone with others beside it."""
        server = Server(linear)
        server.fail = lambda _rows, _length: error if server.under_way == at else None
        with pytest.raises(Unanswered, match="it was sent 2 x 64 tokens"):
            at_once(server)


class TestSample:
    def session(self, model: StubModel) -> Any:
        return Session(ENGINE, Driver(model), None, None, model, None)  # type: ignore[arg-type]

    def sampled(self, texts: list[str], seconds: float = 100.0) -> Any:
        model = StubModel()

        async def inside() -> Any:
            clock = asyncio.get_running_loop().time
            return await sampled(self.session(model), texts, [TASK], clock() + seconds, lambda _: None, clock)

        return virtual_time.run(inside()), model

    def test_windows_of_all_levels_are_kept(self) -> None:
        """Those that the model answered, and how many of them the first level has."""
        found, model = self.sampled(["屏幕很清晰"] * 20)
        assert (found.reviews, found.refused) == (20, 0)
        assert sum(found.first.values()) == 20
        assert sum(found.every.values()) == len(found.windows) == sum(model.batches) == 40
        assert found.first <= found.every

    def test_a_review_that_is_refused_is_counted(self) -> None:
        """And leaves its neighbours alone."""
        found, _ = self.sampled(["屏幕很清晰", "好" * 50_001, "很好"])
        assert (found.reviews, found.refused, sum(found.first.values())) == (3, 1, 2)

    def test_the_time_bounds_it(self) -> None:
        """To a chunk at least."""
        found, _ = self.sampled(["屏幕很清晰"] * 40, 0.0)
        assert found.reviews == 16
