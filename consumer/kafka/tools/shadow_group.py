"""The group of a shadow run and its plan, as the brokers keep them; its topics.

The plan is the offsets of a second group, ``<group>.plan``: brokers keep offsets with a text beside each, so the run
needs no topic of its own for it. Nobody is ever a member of that group.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from consumer.delivery.shadow_plan import PlannedRange, PlanUnreadable, replaced
from consumer.events import Partition
from consumer.kafka.clients.cluster import ClientErrors, ClusterUnreachable, Reader, TopicUnusable
from consumer.kafka.tools.topic_state import held_back, topic_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

AnswerT = TypeVar("AnswerT")

SETTLE_SECONDS = 1.0
"""From a look that finds no plan to the plan that is committed then, a process takes two requests: milliseconds."""

_RETRY_SECONDS = 0.1

_COPIED = ("cleanup.policy", "max.message.bytes", "retention.bytes", "retention.ms")
"""Settings of a live topic that its shadow gets: a result that it takes must not become a dead letter, nor be deleted
sooner. Not min.insync.replicas: a shadow has as many replicas as the brokers give by default."""

_PASSING = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
)

_NO_RIGHT = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


def plan_group(group: str) -> str:
    """The group whose offsets are the plan."""
    return f"{group}.plan"


def switch_group(group: str) -> str:
    """The group whose offsets say how far a switch has published the shadow topics."""
    return f"{group}.switch"


class ShadowGroup:
    """Asks and changes what the brokers hold of one shadow run. Methods raise ClusterUnreachable and TopicUnusable."""

    def __init__(self, servers: str, group: str, client: Mapping[str, Any], timeout: float) -> None:
        """``group``: the run's own. ``timeout``: seconds for each question."""
        self.group = group
        self._timeout = timeout
        self._errors = ClientErrors(servers)
        self._admin = AdminClient(self._errors.settings(client))
        self._client = dict(client)
        self._new_reader = partial(Reader, servers, client=client, timeout=timeout)
        # Its group is of use to a switch alone.
        self._reader = self._new_reader(group_id=switch_group(group))
        self._own = self._new_reader(group_id=group, isolation_level="read_uncommitted")

    def close(self) -> None:
        """Close the clients."""
        self._reader.consumer.close()
        self._own.consumer.close()

    def plan(self, topics: Collection[str]) -> dict[Partition, PlannedRange]:
        """The plan for these topics; empty where no run has begun. Raises PlanUnreadable."""
        found = {}
        for each in self._offsets(plan_group(self.group), self.partitions(topics)):
            if each.offset >= 0:
                place = Partition(each.topic, each.partition)
                try:
                    found[place] = PlannedRange.read(each.offset, each.metadata or "")
                except PlanUnreadable as error:
                    raise PlanUnreadable(f"the plan of group {self.group!r} {error}") from None
        return found

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """How far the run is; a partition that has not begun is left out.

        A transaction that a killed process left open, with exactly_once, is not waited for: it ends in an abort.
        """
        answered = self._offsets(self.group, partitions)
        return {Partition(each.topic, each.partition): each.offset for each in answered if each.offset >= 0}

    def switched(self, partitions: Collection[Partition], *, pending: bool) -> dict[Partition, int]:
        """Up to where a switch has published these partitions of shadow topics; without those that it did not begin.

        ``pending``: do not wait for the end of a transaction that is open, as of a switch that was killed.
        """
        answered = self._offsets(switch_group(self.group), partitions, stable=not pending)
        return {Partition(each.topic, each.partition): each.offset for each in answered if each.offset >= 0}

    def switch_metadata(self) -> Any:
        """Of the group of ``switched``, to commit its offsets in a transaction."""
        return self._reader.consumer.consumer_group_metadata()

    def other_topics(self, topics: Collection[str]) -> list[str]:
        """Input topics besides these that the run reads."""
        asked = [ConsumerGroupTopicPartitions(plan_group(self.group))]
        ask = partial(self._admin.list_consumer_group_offsets, asked, request_timeout=self._timeout)
        offsets = self._answered(lambda: _of_partitions(ask()))
        return sorted({each.topic for each in offsets if each.offset >= 0}.difference(topics))

    def beginning_refused(self, topics: Collection[str], shadows: Collection[str]) -> str:
        """Why no run of these topics may begin; empty where it may. ``shadows``: what it would write to.

        A shadow topic has the results of one run: those of two models or tasks in it could not be told apart.
        """
        if others := self.other_topics(topics):
            return f"group {self.group!r} has begun a run of {', '.join(others)}: give all inputs in one command"
        reader = self._reader
        for topic in shadows:
            for partition in reader.partitions(topic):
                first, end = reader.watermarks(topic, partition)
                if first < end:
                    return f"topic {topic!r} has records already, and group {self.group!r} has no plan of their run"
        return ""

    def going_on_refused(self, plan: Mapping[Partition, PlannedRange], shadows: Collection[str]) -> str:
        """Why a run that has begun cannot go on; empty where it can."""
        if gone := self.gone(shadows):
            return f"topic {gone[0]!r} of the run that group {self.group!r} has begun is gone"
        if others := self.replaced(plan, shadows):
            return f"topic {others[0]!r} was deleted and created again since the run of group {self.group!r} began"
        # ``begin`` commits one for each partition before the plan.
        if len(self.committed(plan)) < len(plan):
            return f"the brokers have forgotten how far the run of group {self.group!r} is"
        return ""

    def begin(self, plan: Mapping[Partition, PlannedRange]) -> dict[Partition, PlannedRange]:
        """Commit where the run begins, and then the plan: a run without a plan has not begun. Returns the plan.

        That of another process, with other ends, where one began at the same time: the last to commit its plan. Hence
        the wait, before either joins the group: nobody can commit to a group with members.
        """
        topics = {place.topic for place in plan}
        if not (found := self.plan(topics)):
            self._commit(self.group, [TopicPartition(*place, each.start) for place, each in plan.items()])
            self.keep(plan)
            time.sleep(SETTLE_SECONDS)
            found = self.plan(topics)
        return found

    def keep(self, plan: Mapping[Partition, PlannedRange]) -> None:
        """Commit the plan, again where it is there: brokers forget offsets of a group that nobody commits to."""
        offsets = [TopicPartition(*place, each.end, metadata=each.note()) for place, each in plan.items()]
        self._commit(plan_group(self.group), offsets)

    def partitions(self, topics: Collection[str]) -> list[Partition]:
        """All of these topics, which must be there."""
        reader = self._reader
        found = []
        for topic in topics:
            numbers = reader.partitions(topic)
            if not numbers:
                raise TopicUnusable(f"topic {topic!r} does not exist{reader.similar(topic)}")
            found += [Partition(topic, number) for number in numbers]
        return found

    def positions(self, partitions: Collection[Partition], time_ms: int | None, *, end: bool) -> dict[Partition, int]:
        """The first offset of a record that is not older than ``time_ms``; the end where there is none such.

        None for the ends themselves (``end``), or the first offsets that are held.
        """
        if time_ms is None:
            return self._at(partitions, OFFSET_END if end else OFFSET_BEGINNING)
        return {**self._at(partitions, OFFSET_END), **self._at(partitions, time_ms)}

    def replaced(self, plan: Mapping[Partition, PlannedRange], shadows: Collection[str]) -> list[str]:
        """Of the run's topics, which are others than when it began."""
        return replaced(plan, self.ids({*shadows, *(place.topic for place in plan)}))

    def gone(self, topics: Collection[str]) -> list[str]:
        """Of these topics, which are not there."""
        return [topic for topic in sorted(topics) if not self._reader.partitions(topic)]

    def held_back(self, topics: Collection[str]) -> list[Partition]:
        """Partitions with a transaction that is open: nobody sees its records, nor any behind the first of them.

        With exactly_once a process that was killed may leave one, for ``delivery.transaction_timeout_ms``.
        """
        places = self.partitions(topics)
        with self._asking():
            return held_back(self._admin, places, self._timeout)

    def ids(self, topics: Collection[str], *, all_of_them: bool = False) -> dict[str, str]:
        """What brokers told these topics by when they were created; a topic that is not there is left out.

        ``all_of_them``: wait for topics that are new, which not every broker has heard of.
        """
        # A new client: one that was asked while brokers were away was seen to get no answer ever after, and to end the
        # process with a failed assertion (librdkafka 2.16). A run asks at its end, whatever it lived through.
        admin = AdminClient(self._errors.settings(self._client))
        deadline = time.monotonic() + self._timeout
        while True:
            with self._asking():
                found = topic_ids(admin, topics, self._timeout)
            if not all_of_them or len(found) == len(topics):
                return found
            if time.monotonic() >= deadline:
                raise TopicUnusable(f"topic {min(set(topics) - found.keys())!r} does not appear; run the command again")
            time.sleep(_RETRY_SECONDS)

    def ensure_topics(self, wanted: Mapping[str, str]) -> list[str]:
        """Create the topics that are missing, as the ones that they shadow are; their names.

        With as many partitions, and the same ``_COPIED`` settings, where this client may see these.
        """
        reader = self._reader
        new = [
            NewTopic(shadow, max(1, len(reader.partitions(topic))), -1, config=self._settings(topic))
            for shadow, topic in wanted.items()
            if not reader.partitions(shadow)
        ]
        for name, future in (self._admin.create_topics(new) if new else {}).items():
            try:
                future.result(self._timeout)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise TopicUnusable(
                        f"topic {name!r} cannot be created: {error.args[0].str()}; create it, or grant this client "
                        "CREATE on it"
                    ) from None
        return [each.topic for each in new]

    def members(self) -> int:
        """How many members the run has now."""
        ask = partial(self._admin.describe_consumer_groups, [self.group], request_timeout=self._timeout)
        return self._answered(lambda: len(ask()[self.group].result().members))

    def drop(self, topics: Collection[str]) -> list[str]:
        """Delete the topics that are there and the groups; what was deleted. The plan goes last."""
        reader = self._reader
        there = [topic for topic in topics if reader.partitions(topic)]
        for name, future in (self._admin.delete_topics(there) if there else {}).items():
            try:
                future.result(self._timeout)
            except KafkaException as error:
                raise TopicUnusable(f"topic {name!r} cannot be deleted: {error.args[0].str()}") from None
        gone = list(there)
        for group in (self.group, switch_group(self.group), plan_group(self.group)):
            try:
                self._admin.delete_consumer_groups([group], request_timeout=self._timeout)[group].result(self._timeout)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                    raise TopicUnusable(f"group {group!r} cannot be deleted: {error.args[0].str()}") from None
            else:
                gone.append(group)
        return gone

    def _settings(self, topic: str) -> dict[str, str]:
        """Of ``_COPIED``, what is set for this topic; empty where it is missing, or may not be asked."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = self._admin.describe_configs([resource], request_timeout=self._timeout)[resource].result()
        except KafkaException:
            return {}
        return {name: entries[name].value for name in _COPIED if name in entries and not entries[name].is_default}

    def _at(self, partitions: Collection[Partition], which: int) -> dict[Partition, int]:
        with self._asking({place.topic for place in partitions}):
            asked = [TopicPartition(*place, which) for place in partitions]
            found = _without_errors(self._reader.consumer.offsets_for_times(asked, timeout=self._timeout))
        return {Partition(each.topic, each.partition): each.offset for each in found if each.offset >= 0}

    def _offsets(self, group: str, partitions: Collection[Partition], *, stable: bool = False) -> list[TopicPartition]:
        """``stable``: wait for the end of transactions that commit some of these."""
        level = "read_committed" if stable else "read_uncommitted"
        with self._client_of(group, level) as consumer:
            asked = [TopicPartition(*place) for place in partitions]
            return self._answered(lambda: _without_errors(consumer.committed(asked, timeout=self._timeout)))

    def _commit(self, group: str, offsets: list[TopicPartition]) -> None:
        with self._client_of(group, "read_committed") as consumer:
            self._answered(lambda: _without_errors(consumer.commit(offsets=offsets, asynchronous=False) or []))

    @contextmanager
    def _client_of(self, group: str, level: str) -> Iterator[Any]:
        """A consumer that asks for offsets of this group; that of the run, which is asked every second, stays."""
        if group == self.group:
            yield self._own.consumer
        else:
            with self._new_reader(group_id=group, isolation_level=level) as reader:
                yield reader.consumer

    def _answered(self, ask: Callable[[], AnswerT]) -> AnswerT:
        """Ask again, up to the timeout, while brokers look for the coordinator of a group, or it loads the group."""
        deadline = time.monotonic() + self._timeout
        with self._asking():
            while True:
                try:
                    return ask()
                except KafkaException as error:
                    if error.args[0].code() not in _PASSING or time.monotonic() >= deadline:
                        raise
                time.sleep(_RETRY_SECONDS)

    @contextmanager
    def _asking(self, topics: Collection[str] = ()) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            if error.args[0].code() in _GONE and (gone := self.gone(topics)):
                what = f"topic {gone[0]!r} of the run of group {self.group!r} is gone"
                raise TopicUnusable(f"{what}; stop the run and drop it: 'rexstream shadow drop'") from None
            if error.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID:
                raise TopicUnusable(f"group {self.group!r} has members, so it cannot begin now") from None
            if error.args[0].code() in _NO_RIGHT:
                raise TopicUnusable(
                    f"group {self.group!r} cannot be used: {error.args[0].str()}; grant this client READ on the groups "
                    f"{self.group} and {plan_group(self.group)}, and on the input topics"
                ) from None
            if error.args[0].code() > 0:  # a broker's answer; those below are the client's own
                what = f"the brokers answer {error.args[0].name()} for group {self.group!r}: {error.args[0].str()}"
                raise ClusterUnreachable(f"{what}; try again, or mend what they name") from error
            raise self._reader.unreachable() from error


def _of_partitions(answered: Mapping[str, Any]) -> list[TopicPartition]:
    """What brokers answered of one group. Raises KafkaException."""
    (answer,) = answered.values()
    return _without_errors(answer.result().topic_partitions or [])


def _without_errors(answered: list[TopicPartition]) -> list[TopicPartition]:
    """What brokers answered. Raises KafkaException for the first partition with an error: it is not one without."""
    for each in answered:
        if each.error is not None:
            raise KafkaException(each.error)
    return answered
