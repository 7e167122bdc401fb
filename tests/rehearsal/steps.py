"""What is done to the stack while reviews come in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rehearsal.act import PARTITIONS
from rehearsal.stack import SERVERS
from rehearsal.step import Promise
from rehearsal.traffic import NEWER_SCHEMA, avro_reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.audit import Audit
    from chaos.scenario import Mode
    from chaos.worker import Worker
    from rehearsal.act import Act

BETWEEN_SERVERS_SECONDS = 2.0
SERVER_AWAY_SECONDS = 8.0
BROKER_AWAY_SECONDS = 4.0
PAUSE_FOR_ALERT_SECONDS = 30.0
FIRST_RECORDS = 20
"""After a roll-out, of each input: what is sent before the next one begins."""


def roll(act: Act, old: int, new: int) -> None:
    """A version of the model on server after server."""
    name = "model update" if new > old else "its rollback"
    with act.step(name, f"version {new} in place of {old} on one server after the other") as step:
        before = act.sent()
        for number, server in enumerate(act.stack.servers, 1):
            if number > 1:
                act.pause(BETWEEN_SERVERS_SECONDS)
            server.order(version=new)
            act.did(f"model server {number} has version {new}")
        after = act.sent()
        calls = f'sum(rate(rexstream_model_call_seconds_count{{version="{old}"}}[3s])) or vector(0)'
        act.wait(lambda: act.stack.prometheus.value(calls) == 0, f"no call is answered by version {old}")
        act.did(f"no call is answered by version {old} any more")
        step.of_audit.append(
            lambda audits: _names(audits, after, None, {str(new)}, f"sent after it names version {new}")
        )
        step.of_audit.append(
            lambda audits: _names(audits, before, after, {str(old), str(new)}, "sent meanwhile names one of the two")
        )


def _names(
    audits: Mapping[str, Audit], first: Mapping[str, int], last: Mapping[str, int] | None, allowed: set[str], words: str
) -> Promise:
    """Whether results of records between these numbers name versions that are allowed; without an end, of the first."""
    wrong = [
        f"{topic} {number} {'+'.join(sorted(named))}"
        for topic, found in audits.items()
        for number, named in found.named.items()
        if first[topic] <= number < (first[topic] + FIRST_RECORDS if last is None else last[topic])
        and not named <= allowed
    ]
    return Promise(not wrong, f"every result of a review {words}" + "".join(f"; not {each}" for each in wrong[:3]))


def scale_out_and_in(act: Act) -> None:
    """A third worker comes and goes."""
    with act.step("scale-out", "a third worker joins the group"):
        third = act.worker()
        third.wait_until_ready()
        act.did("it is ready")
        act.wait(lambda: third.assignment >= 2 and act.assigned == 2 * PARTITIONS, "it has its share of the partitions")
        act.did(f"the workers have {_shares(act)} of {2 * PARTITIONS} partitions")
        act.promise(max(worker.assignment for worker in act.running) <= 4, "no worker has more than its share")
    with act.step("scale-in", "SIGTERM of the third worker"):
        code = third.drain()
        act.did(f"it ended with exit code {code}")
        act.promise(code == 0, "it drained within its grace period")
        act.wait(lambda: act.assigned == 2 * PARTITIONS, "the others have its partitions")
        act.did(f"the workers have {_shares(act)} of {2 * PARTITIONS} partitions")


def _shares(act: Act) -> str:
    return " + ".join(str(worker.assignment) for worker in act.running)


def lose_a_model_server(act: Act) -> None:
    """One of three, for some seconds."""
    victim = act.stack.servers[0]
    calls = f'sum(rate(stub_predict_calls_total{{instance="127.0.0.1:{victim.metrics_port}"}}[3s])) > bool 0'
    with act.step("model server lost", f"SIGKILL of one of {SERVERS} for {SERVER_AWAY_SECONDS:.0f} s"):
        before = _committed(act)
        victim.kill()
        act.did("SIGKILL")
        act.pause(SERVER_AWAY_SECONDS)
        act.promise(all(worker.ready for worker in act.running), "every worker is ready while it is away")
        act.promise(_committed(act) > before, "reviews are processed while it is away")
        victim.start()
        act.did("it is back")
        act.wait(lambda: act.stack.prometheus.value(calls) == 1, "the balancer sends it calls again")
        act.did("the balancer sends it calls again")


def kill_a_worker(act: Act) -> None:
    """SIGKILL; compose starts another at once."""
    with act.step(
        "worker killed",
        "SIGKILL of a worker that has partitions; another is started at once",
        may={"RexstreamNotCommitted": "nobody can commit until the killed one's session has ended"},
    ):
        victim = act.running[0]
        act.promise(victim.assignment > 0, "it has partitions")
        victim.kill()
        act.did(f"SIGKILL of worker {victim.number}")
        other = act.worker()
        other.wait_until_ready()
        act.did(f"worker {other.number} is ready")
        act.wait(
            lambda: other.assignment > 0 and act.assigned == 2 * PARTITIONS,
            "the partitions of the killed one are taken",
        )
        act.did(f"the workers have {_shares(act)} of {2 * PARTITIONS} partitions")


def restart_the_broker(act: Act) -> None:
    """The only one."""
    with act.step(
        "broker restarted",
        f"SIGTERM of the only broker, away for {BROKER_AWAY_SECONDS:.0f} s and its start",
        may={
            "RexstreamPaused": "no broker takes results",
            "RexstreamStuck": "no broker, no work",
            "RexstreamNotCommitted": "no broker takes offsets",
        },
    ):
        act.stack.kafka.stop()
        act.did("the broker is gone")
        time.sleep(BROKER_AWAY_SECONDS)
        act.promise(all(worker.get("/livez")[0] == 200 for worker in act.running), "every worker is alive without it")
        act.stack.kafka.start()
        act.did("the broker is back")


def lose_the_registry(act: Act) -> None:
    """While a producer begins to use a schema that no worker has seen."""
    paused = 'max(ALERTS{alertname="RexstreamPaused",reason="registry",alertstate="firing",clock="fast"}) or vector(0)'
    with act.step(
        "registry lost",
        "SIGKILL of the schema registry; then Avro reviews of a schema that no worker has seen",
        must=("RexstreamPaused",),
        may={"RexstreamStuck": "nothing of this topic is processed"},
    ):
        act.stack.registry.kill()
        act.did("SIGKILL")
        act.pause(3)
        act.promise(not any(_waits(worker) for worker in act.running), "known schemas need no registry")
        act.loads[act.avro_topic].send(avro_reviews(act.newer_schema, NEWER_SCHEMA), 2)
        act.wait(lambda: any(_waits(worker) for worker in act.running), "the Avro topic is paused for the registry")
        act.did("the Avro topic is paused for the registry")
        before = _committed(act, act.json_topic)
        act.wait(lambda: act.stack.prometheus.value(paused) == 1, "RexstreamPaused", PAUSE_FOR_ALERT_SECONDS)
        act.did("the alert RexstreamPaused fires")
        act.promise(_committed(act, act.json_topic) > before, "JSON reviews go on")
        act.stack.registry.start()
        act.did("the registry is back")
        act.wait(lambda: not any(_waits(worker) for worker in act.running), "the Avro topic goes on by itself")
        act.did("the Avro topic goes on")


def _waits(worker: Worker) -> bool:
    """Whether a topic of it is paused for the registry."""
    _, status = worker.get("/status")
    return status is not None and "registry" in status["paused_topics"]


def _committed(act: Act, topic: str | None = None) -> int:
    topics = [topic] if topic else list(act.loads)
    return sum(max(0, offset) for each in topics for offset in act.stack.topics.committed(act.group, each))


STEPS: Mapping[Mode, tuple[Callable[[Act], None], ...]] = {
    "at_least_once": (
        lambda act: roll(act, 1, 2),
        lambda act: roll(act, 2, 1),
        scale_out_and_in,
        lose_a_model_server,
        kill_a_worker,
        restart_the_broker,
        lose_the_registry,
    ),
    # Without the broker: an only one that is away for longer than a transaction may be open can come back without the
    # markers of those that it aborted, and readers wait for ever (docs/operations.md; make chaos loses one of three).
    "exactly_once": (
        lambda act: roll(act, 1, 2),
        lambda act: roll(act, 2, 1),
        scale_out_and_in,
        lose_a_model_server,
        kill_a_worker,
        lose_the_registry,
    ),
}
"""All that is rehearsed in a mode."""

BRIEF: tuple[Callable[[Act], None], ...] = (lambda act: roll(act, 1, 2), kill_a_worker)
"""What differs in the other mode, for a rehearsal of both."""
