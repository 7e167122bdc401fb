"""Several model servers: a fault of one costs its share of the work, and nothing else."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import BATCH_FAULT, KNOWN_GOOD, all_answers, assert_answered, until, window
from several_servers import run_cluster

from consumer.serving.dispatch.dispatcher import State, WindowAnswer, WindowRefused
from consumer.serving.dispatch.transfers import HELD_AGAIN_SECONDS, HELD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from several_servers import Cluster, Mode


def sent(cluster: Cluster, name: str) -> set[int]:
    """What this server got, but for the probe window."""
    return {mark for call in cluster[name].calls for mark in call} - {KNOWN_GOOD}


async def answered(cluster: Cluster, marks: Sequence[int]) -> None:
    assert_answered(marks, await all_answers(cluster.dispatcher, marks))


def submit(cluster: Cluster, mark: int, length: int = 16) -> asyncio.Future[WindowAnswer]:
    return cluster.dispatcher.submit(window(mark, length), deadline=0.0, level=0)


async def stream(cluster: Cluster, first: int, seconds: float) -> list[WindowAnswer | BaseException]:
    """Thirty windows a second, all of which are waited for."""
    futures = []
    for number in range(int(seconds * 30)):
        futures.append(submit(cluster, first + number))
        await asyncio.sleep(1 / 30)
    return await asyncio.gather(*futures, return_exceptions=True)


def test_all_servers_work_and_each_answers_a_probe_first() -> None:
    """A stream that one could take alone is spread over the three."""

    async def body(cluster: Cluster) -> None:
        assert [server.calls for server in cluster.servers] == [[[KNOWN_GOOD]]] * 3
        answers = await stream(cluster, 100, 2.0)
        assert_answered(range(100, 160), answers)
        assert all(len(server.calls) > 12 for server in cluster.servers)

    cluster = run_cluster(body)
    assert cluster.states == []


def test_an_event_stays_with_the_version_that_began_it_while_one_server_has_that() -> None:
    """Another version's answer would make it begin again. Once that version is gone, the others answer."""

    async def body(cluster: Cluster) -> None:
        def begun(mark: int) -> asyncio.Future[WindowAnswer]:
            return cluster.dispatcher.submit(window(mark), 0.0, 1, version="old")

        cluster["a"].version = "old"
        assert_answered(range(100, 160), await stream(cluster, 100, 2.0))
        found = []
        for mark in range(200, 260):
            found.append(begun(mark))
            await asyncio.sleep(1 / 30)
        assert {each.answer.model_version for each in await asyncio.gather(*found)} == {"old"}
        assert_answered(range(300, 360), await stream(cluster, 300, 2.0))
        assert any(set(range(300, 360)) & sent(cluster, name) for name in "bc"), "others go anywhere"
        cluster["a"].die()
        late = [begun(mark) for mark in range(400, 410)]
        assert {each.answer.model_version for each in await asyncio.gather(*late)} == {"1"}

    assert run_cluster(body, restart=None).states == []


def test_what_never_reached_a_server_goes_to_another_at_once() -> None:
    """Nothing waits for the dead one, which is reported once, and once when it is back."""

    async def body(cluster: Cluster) -> None:
        cluster["a"].restart = 20.0
        cluster["a"].die()
        began = cluster.now()
        await answered(cluster, [*range(100, 130)])
        assert cluster.now() - began < 0.2
        assert_answered(range(200, 500), await stream(cluster, 200, 10.0))
        assert cluster.status("a") == "outage"
        await asyncio.sleep(20)
        assert cluster.status("a") == "ok"

    cluster = run_cluster(body)
    assert cluster.states == []
    assert [address for address, reason in cluster.reports if reason] == ["a:1"]
    (_, reason), (_, well) = [report for report in cluster.reports if report[0] == "a:1"][-2:]
    assert "failed to connect" in reason
    assert well == ""


def test_what_broke_off_waits_for_its_server() -> None:
    """Others are answered meanwhile; what was in the call is answered by the same server, once it is back."""

    async def body(cluster: Cluster) -> None:
        cluster["a"].restart = 20.0
        held = submit(cluster, 100)
        await asyncio.sleep(0.01)
        (name,) = [name for name in "abc" if 100 in sent(cluster, name)]
        cluster[name].restart = 20.0
        cluster[name].die()
        assert_answered(range(200, 500), await stream(cluster, 200, 10.0))
        assert not held.done()
        assert (await held).cells.rows.tolist() == [100]
        assert cluster.now() < 24
        assert [n for n in "abc" if 100 in sent(cluster, n)] == [name]

    cluster = run_cluster(body)
    assert cluster.states == []


def test_what_broke_off_once_is_tried_alone_on_one_other_server_after_a_minute() -> None:
    """A server that never comes back does not hold it for ever; the others' work goes on around that call."""

    async def body(cluster: Cluster) -> None:
        held = submit(cluster, 100)
        await asyncio.sleep(0.01)
        (name,) = [name for name in "abc" if 100 in sent(cluster, name)]
        began = cluster.now()
        cluster[name].die()
        others = asyncio.create_task(stream(cluster, 200, HELD_SECONDS + 5))
        await held
        assert HELD_SECONDS <= cluster.now() - began < HELD_SECONDS + 2
        assert_answered(range(200, 200 + 30 * 65), await others)
        assert len([n for n in "abc" if 100 in sent(cluster, n)]) == 2

    assert run_cluster(body, restart=None).states == []


def test_a_server_that_comes_back_and_dies_again_unseen_has_been_away_since_it_first_died() -> None:
    """Whoever waits for it waits a minute, not a minute more with each death that no health probe came between."""

    async def body(cluster: Cluster) -> None:
        held = submit(cluster, 100)
        await asyncio.sleep(0.01)
        (server,) = [server for server in cluster.servers if [100] in server.calls]
        began, server.restart = cluster.now(), None
        server.die()
        for _ in range(3):
            await asyncio.sleep(10)
            server.mode = "up"
            server.die()
        await held
        assert HELD_SECONDS <= cluster.now() - began < HELD_SECONDS + 2
        assert server.calls[-1] == [100], "no probe was answered"

    assert run_cluster(body).states == []


@pytest.mark.parametrize("restart", [20.0, None])
def test_a_window_with_which_a_health_probe_broke_off_waits_for_that_server(restart: float | None) -> None:
    """Its server rejects all, so those that it rejected are asked again in turn; then it dies in such a probe."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 130))
        rejecting, other = cluster.servers
        rejecting.mode, rejecting.restart = "rejects", restart
        waiting = asyncio.create_task(stream(cluster, 200, 1.0))
        while cluster.status("a") == "ok" or rejecting.in_flight:
            await asyncio.sleep(0.001)
        before = len(rejecting.calls)
        cluster.poison = sent(cluster, "a") - sent(cluster, "b") - set(range(130))
        while not rejecting.deaths:
            await asyncio.sleep(0.001)
        (asked,) = rejecting.calls[-1]
        assert before < len(rejecting.calls), "in a health probe"
        assert asked in cluster.poison
        cluster.poison, died_at = set(), cluster.now()
        await asyncio.sleep(15)
        assert asked not in sent(cluster, "b")
        assert not waiting.done()
        assert_answered(range(200, 230), await waiting)
        if restart is None:
            assert asked in sent(cluster, "b")
            assert HELD_SECONDS <= cluster.now() - died_at < HELD_SECONDS + 2
        else:
            assert asked not in sent(cluster, "b")
        assert other.deaths == 0

    assert run_cluster(body, count=2).states == []


def test_a_window_that_ends_servers_ends_only_the_first_while_that_comes_back() -> None:
    """It is refused after five crashes that count, as before one server; the others never meet it."""

    async def body(cluster: Cluster) -> None:
        cluster.poison = {666}
        poison = submit(cluster, 666)
        await asyncio.sleep(0.01)
        others = await stream(cluster, 1000, 60.0)
        assert_answered(range(1000, 2800), others)
        while not poison.done():
            assert_answered(range(3000, 3300), await stream(cluster, 3000, 10.0))
        with pytest.raises(WindowRefused, match="Poison"):
            await poison
        assert sorted(server.deaths > 0 for server in cluster.servers) == [False, False, True]

    assert run_cluster(body).states == []


def test_a_window_that_ends_servers_that_never_come_back_ends_two_at_most() -> None:
    """It waits, without bound, until one of the two is back; that one's status says so."""

    async def body(cluster: Cluster) -> None:
        cluster.poison = {666}
        poison = submit(cluster, 666)
        await asyncio.sleep(0.01)
        for first in range(1000, 10_000, 1500):
            assert_answered(range(first, first + 1500), await stream(cluster, first, 50.0))
        assert sorted(server.deaths for server in cluster.servers) == [0, 1, 1]
        assert sum(each.suspected for each in cluster.dispatcher.endpoints) == 1
        assert not poison.done()
        back = next(server for server in cluster.servers if server.deaths)
        cluster.poison = set()
        back.mode = "up"
        assert (await poison).cells.rows.tolist() == [666]
        assert 666 in back.calls[-1] or 666 in sent(cluster, back.address[0])

    assert run_cluster(body, restart=None).states == []


def test_an_isolated_window_does_not_wait_for_a_server_that_then_hangs_for_good() -> None:
    """It ended that server twice; its third call ran out of time, so nothing says any more that it ends one."""

    async def body(cluster: Cluster) -> None:
        future = submit(cluster, 100)
        while not (first := [server for server in cluster.servers if [100] in server.calls]):
            await asyncio.sleep(0.001)
        load = asyncio.create_task(stream(cluster, 1000, 300.0))
        server = first[0]
        for calls in (1, 2):
            while server.calls.count([100]) < calls:
                await asyncio.sleep(0.001)
            server.die()
        while server.calls.count([100]) < 3:
            await asyncio.sleep(0.001)
        server.mode = "hangs"
        async with asyncio.timeout(120 + HELD_SECONDS + 30):
            await future
        assert_answered(range(1000, 10_000), await load)

    assert run_cluster(body).states == []


def test_a_server_that_ends_in_every_call_but_health_probes_keeps_no_window_for_ever() -> None:
    """It is restarted and ends in the canary window, too, so it never shows that a window is not the cause."""

    async def body(cluster: Cluster) -> None:
        server, answer = cluster["a"], cluster["a"]._answer

        async def ends(marks: list[int], timeout: float) -> object:
            if set(marks) - {KNOWN_GOOD}:
                asyncio.get_running_loop().call_later(0.005, server.die)
            return await answer(marks, timeout)

        server._answer = ends  # type: ignore[method-assign,assignment]
        async with asyncio.timeout(HELD_AGAIN_SECONDS + 300):
            assert_answered(range(1000, 4000), await stream(cluster, 1000, 100.0))
        assert server.deaths > 10
        assert [other.deaths for other in cluster.servers[1:]] == [0, 0]

    assert run_cluster(body).states == []


def test_a_server_that_hangs_holds_only_what_it_has() -> None:
    """Its calls run out of time, its health probes fail, and then the others answer what it had."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 110))
        cluster["b"].mode = "hangs"
        began = cluster.now()
        assert_answered(range(200, 2000), await stream(cluster, 200, 60.0))
        assert cluster.now() - began < 61, "though it never answered a window, and so has no timeout of its own"
        assert len(sent(cluster, "b") - set(range(100, 110))) < 40
        cluster["b"].mode = "up"
        await asyncio.sleep(10)
        assert cluster.status("b") == "ok"

    assert run_cluster(body).states == []


def test_a_server_that_fails_and_then_is_too_busy_for_health_probes_keeps_nothing_from_the_others() -> None:
    """It is not an outage's, and nobody knows how long it lasts."""

    async def body(cluster: Cluster) -> None:
        for server in cluster.servers[1:]:
            server.seconds = 5.0
        server = cluster["a"]
        server.mode = "hangs"
        futures = [submit(cluster, mark, length) for mark, length in ((100, 16), (101, 256), (102, 512))]
        while not cluster.dispatcher.endpoints[0].failed:
            await asyncio.sleep(0.01)  # shorter than the pause before the first health probe
        assert sent(cluster, "a")
        server.mode = "busy"
        async with asyncio.timeout(30):
            await asyncio.gather(*futures)
        shown = cluster.dispatcher.endpoints[0]
        assert (shown.state, bool(shown.reason)) == ("busy", True), "people see that it gets nothing, and why"
        server.mode = "up"
        await asyncio.sleep(10)
        shown = cluster.dispatcher.endpoints[0]
        assert (shown.state, shown.reason) == ("ok", "")

    assert run_cluster(body).states == []


def test_a_new_server_that_is_too_busy_for_its_first_probe_gets_no_windows_yet() -> None:
    """Its model may not fit: with several bundles that is what an answer shows, and nothing else does."""

    async def body(cluster: Cluster) -> None:
        server = cluster.connect("d:1")
        server.mode = "busy"
        cluster.dispatcher.resolved(["a:1", "b:1", "c:1", "d:1"], lambda _: server)
        assert_answered(range(100, 250), await stream(cluster, 100, 5.0))
        assert (sent(cluster, "d"), cluster.status("d")) == (set(), "trial")
        server.mode = "up"
        await asyncio.sleep(3)
        assert_answered(range(300, 360), await stream(cluster, 300, 2.0))
        assert sent(cluster, "d")

    assert run_cluster(body).states == []


@pytest.mark.parametrize("mode", ["misfit", "rejects"])
def test_a_server_whose_model_does_not_fit_refuses_nobody(mode: Mode) -> None:
    """Its windows are answered by the others, and it is not used until it answers them as well."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 110))
        cluster["b"].mode = mode
        assert_answered(range(1000, 4600), await stream(cluster, 1000, 120.0))
        assert cluster.status("b") == "deployment_fault"
        before = len(sent(cluster, "b"))
        assert before < 40
        assert_answered(range(5000, 5600), await stream(cluster, 5000, 20.0))
        assert cluster.status("b") == "deployment_fault", "its health probes with real windows fail"
        cluster["b"].mode = "up"
        assert_answered(range(6000, 6600), await stream(cluster, 6000, 20.0))
        assert cluster.status("b") == "ok"
        assert len(sent(cluster, "b")) > before + 100

    cluster = run_cluster(body)
    assert cluster.states == []
    assert {address for address, reason in cluster.reports if reason} == {"b:1"}


def test_a_window_that_all_reject_is_refused_and_its_server_goes_on() -> None:
    """The review ends where it began."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 110))
        for server in cluster.servers:
            answer = server._answer

            async def rejecting(marks: list[int], timeout: float, answer: object = answer) -> object:
                if 13 in marks:
                    raise BATCH_FAULT
                return await answer(marks, timeout)  # type: ignore[operator]

            server._answer = rejecting  # type: ignore[method-assign,assignment]
        answers = await all_answers(cluster.dispatcher, [*range(200, 210), 13])
        assert_answered(range(200, 210), answers[:-1])
        assert isinstance(answers[-1], WindowRefused)
        assert len([name for name in "abc" if 13 in sent(cluster, name)]) == 1

    assert run_cluster(body).states == []


def test_sending_stops_only_when_no_server_can_be_used_and_the_reason_names_them() -> None:
    """An outage of all; a deployment fault, where one says that; and it goes on with the first that answers."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 110))
        cluster["a"].mode = cluster["b"].mode = "down"
        waiting = asyncio.create_task(stream(cluster, 200, 5.0))
        await asyncio.sleep(8)
        assert_answered(range(200, 350), await waiting)
        assert cluster.states == []
        cluster["c"].mode = "down"
        held = [submit(cluster, mark) for mark in range(400, 410)]
        await until(State.OUTAGE, cluster.dispatcher)
        cluster["b"].mode = "misfit"
        await until(State.DEPLOYMENT_FAULT, cluster.dispatcher)
        cluster["a"].mode = "up"
        assert_answered(range(400, 410), await asyncio.gather(*held))
        await until(State.OK, cluster.dispatcher)

    cluster = run_cluster(body)
    assert [state for state, _ in cluster.states] == [State.OUTAGE, State.DEPLOYMENT_FAULT, State.OK]
    for _, reason in cluster.states[:2]:
        assert all(f"{name}:1: " in reason for name in "abc")


def test_an_address_that_vanishes_gets_nothing_new_and_is_closed_when_it_holds_nothing() -> None:
    """What is in flight there is answered."""

    async def body(cluster: Cluster) -> None:
        cluster["a"].seconds = 5.0
        futures = [submit(cluster, mark) for mark in range(100, 103)]
        await asyncio.sleep(0.01)
        assert sent(cluster, "a")
        cluster.dispatcher.resolved(["b:1", "c:1"], cluster.connect)
        assert_answered(range(200, 290), await stream(cluster, 200, 3.0))
        assert cluster.status("a") == "gone"
        assert [server.closed for server in cluster.servers] == [False] * 3
        assert len(cluster["a"].calls) == 2
        await asyncio.gather(*futures)
        await asyncio.sleep(0.1)
        assert [server.closed for server in cluster.servers] == [True, False, False]
        assert [each.address for each in cluster.dispatcher.endpoints] == ["b:1", "c:1"]
        await answered(cluster, range(300, 310))

    assert run_cluster(body).states == []


def test_an_address_that_comes_back_is_the_same_endpoint_with_what_it_holds() -> None:
    """A pod that crashed vanishes from a headless service: what it may have crashed of waits for it."""

    async def body(cluster: Cluster) -> None:
        held = submit(cluster, 100)
        await asyncio.sleep(0.01)
        (name,) = [name for name in "abc" if 100 in sent(cluster, name)]
        cluster[name].restart = 30.0
        cluster[name].die()
        every = [f"{each}:1" for each in "abc"]
        cluster.dispatcher.resolved([each for each in every if each[0] != name], cluster.connect)
        assert_answered(range(200, 500), await stream(cluster, 200, 10.0))
        assert cluster.status(name) == "gone"
        cluster.dispatcher.resolved(every, cluster.connect)
        await held
        assert cluster.now() < 35
        assert len(cluster.servers) == 3, "no new client was made"
        assert [n for n in "abc" if 100 in sent(cluster, n)] == [name]

    assert run_cluster(body).states == []


def test_a_new_server_gets_windows_once_it_answered_a_probe() -> None:
    """One that is still loading its model gets none, and is no reason to report anything but itself."""

    async def body(cluster: Cluster) -> None:
        await answered(cluster, range(100, 110))

        def loading(address: str) -> object:
            server = cluster.connect(address)
            server.mode = "down"
            return server

        cluster.dispatcher.resolved(["a:1", "b:1", "c:1", "d:1"], loading)  # type: ignore[arg-type]
        assert_answered(range(200, 290), await stream(cluster, 200, 3.0))
        assert sent(cluster, "d") == set()
        cluster["d"].mode = "up"
        assert_answered(range(300, 600), await stream(cluster, 300, 10.0))
        assert sent(cluster, "d")

    assert run_cluster(body).states == []


def test_a_client_that_cannot_be_made_changes_nothing() -> None:
    """As when files of model.tls are being renewed."""

    async def body(cluster: Cluster) -> None:
        def refuse(address: str) -> object:
            raise ValueError(address)

        with pytest.raises(ValueError, match="d:1"):
            cluster.dispatcher.resolved(["d:1"], refuse)  # type: ignore[arg-type]
        assert_answered(range(100, 160), await stream(cluster, 100, 2.0))
        assert all(sent(cluster, name) for name in "abc")

    run_cluster(body)


def test_one_server_that_becomes_three_and_one_again_loses_nothing() -> None:
    """All the time windows are sent, and the servers that went are closed."""

    async def body(cluster: Cluster) -> None:
        answers = asyncio.create_task(stream(cluster, 100, 20.0))
        for addresses in (["b:1", "c:1", "d:1"], ["d:1"], ["d:1", "e:1"], ["e:1"]):
            await asyncio.sleep(4)
            cluster.dispatcher.resolved(addresses, cluster.connect)
        assert_answered(range(100, 700), await answers)
        assert [each.address for each in cluster.dispatcher.endpoints] == ["e:1"]
        assert [server.closed for server in cluster.servers] == [True, True, True, True, False]

    assert run_cluster(body, count=1).states == []


@pytest.mark.parametrize("seed", range(10))
def test_whatever_servers_do_all_windows_are_answered_and_no_window_spreads_harm(seed: int) -> None:
    """Random deaths, hangs, misfits and lists of addresses; ``Cluster.check`` judges every call. The same each time."""
    draw = random.Random(seed)

    async def body(cluster: Cluster) -> None:
        answers = asyncio.create_task(stream(cluster, 1000, 120.0))
        while not answers.done():
            await asyncio.sleep(draw.expovariate(1 / 8))
            server = draw.choice(cluster.servers)
            match draw.randrange(6):
                case 0 | 1:
                    if server.mode != "down":
                        server.restart = draw.choice([1.0, 3.0, 30.0, 90.0])
                        server.die()
                case 2 | 3:
                    if server.mode == "up":
                        server.mode = draw.choice(["hangs", "misfit", "rejects"])
                        asyncio.get_running_loop().call_later(
                            draw.choice([0.5, 5.0, 40.0]),
                            server.mend,
                        )
                case 4:
                    cluster.dispatcher.resolved(
                        draw.sample(["a:1", "b:1", "c:1"], draw.choice([1, 2, 3])), cluster.connect
                    )
                case _:
                    cluster.dispatcher.resolved(["a:1", "b:1", "c:1"], cluster.connect)
        cluster.dispatcher.resolved(["a:1", "b:1", "c:1"], cluster.connect)
        assert_answered(range(1000, 4600), await answers)
        assert cluster.dispatcher.waiting == cluster.dispatcher.in_flight == 0

    run_cluster(body, jitter=seed)
