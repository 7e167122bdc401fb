"""Which tasks an event runs, and where results go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.codecs.outputs import Chosen, Routes
from consumer.config.route import RouteConfig
from consumer.events import BadInput, ReviewEvent
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.events import SourceRecord

    MakeRecord = Callable[..., SourceRecord]

TASKS = {name: Task(name, "extract", {name: None}) for name in ("ner", "sentiment", "event")}


@pytest.fixture
def routes() -> Routes:
    return Routes(
        [
            RouteConfig(input="reviews.raw", tasks=("ner", "sentiment"), output="out.{task}"),
            RouteConfig(input="free", format="avro", output="all"),
            RouteConfig(input="any", tasks=("ner",), event_tasks="any", inline_schemas=False, output="any.{task}"),
        ],
        TASKS,
    )


def names(chosen: Chosen) -> list[str]:
    return [task.name for task in chosen.tasks]


def test_an_event_without_a_choice_runs_the_routes_tasks(routes: Routes, make_record: MakeRecord) -> None:
    """The route decides, in its order."""
    assert names(routes.choose(make_record(), ReviewEvent("e", "x"))) == ["ner", "sentiment"]


def test_an_events_tasks_narrow_the_routes(routes: Routes, make_record: MakeRecord) -> None:
    """Another task has a topic that nobody may have made: it is refused, and the key that would allow it is named."""
    assert names(routes.choose(make_record(), ReviewEvent("e", "x", tasks=("sentiment",)))) == ["sentiment"]
    chosen = routes.choose(make_record(), ReviewEvent("e", "x", tasks=("event", "ner")))
    assert names(chosen) == ["ner"]
    (((refused,), error),) = chosen.refused
    assert (refused, error.stage, error.reason) == ("event", "validate", "TaskNotAllowed")
    assert "event_tasks" in error.message
    with pytest.raises(KeyError):
        routes.output_topic("reviews.raw", "event")


def test_a_route_may_let_events_name_any_task(routes: Routes, make_record: MakeRecord) -> None:
    """Any that is loaded; without a choice its own run."""
    event = ReviewEvent("e", "x", tasks=("event", "sentiment"))
    assert names(routes.choose(make_record(topic="any"), event)) == ["event", "sentiment"]
    assert names(routes.choose(make_record(topic="any"), ReviewEvent("e", "x"))) == ["ner"]
    assert routes.output_topic("any", "event") == "any.event"


@pytest.mark.parametrize("tasks", [None, ("ner",)])
def test_a_route_may_take_no_schemas(routes: Routes, make_record: MakeRecord, tasks: tuple[str, ...] | None) -> None:
    """The event's named tasks run all the same, those of the route only where it makes no choice."""
    event = ReviewEvent("e", "x", tasks=tasks, schema={"a": None})
    chosen = routes.choose(make_record(topic="any"), event)
    assert names(chosen) == list(tasks or ())
    ((refused, error),) = chosen.refused
    assert (refused, error.reason) == (("inline",), "SchemaNotAllowed")
    assert "inline_schemas" in error.message


def test_all_that_is_refused_is_one_letter_and_one_message_that_ends(routes: Routes, make_record: MakeRecord) -> None:
    """However many names there are; those that no task can have are not passed on to a replay."""
    tasks = ("event", *(f"t{n}" for n in range(40)), "我的电话", "a,ner", "inline", " ner")
    chosen = routes.choose(make_record(), ReviewEvent("e", "x", tasks=("ner", *tasks)))
    assert names(chosen) == ["ner"]
    ((refused, error),) = chosen.refused
    assert refused == ("event", *(f"t{n}" for n in range(40)))
    assert error.reason == "UnknownTask"
    assert "44 unknown tasks" in error.message
    assert "event_tasks" in error.message
    assert len(error.message) < 500


def test_an_events_schema_is_the_inline_task(routes: Routes, make_record: MakeRecord) -> None:
    """A schema alone is the event's whole choice; with tasks both run."""
    event = ReviewEvent("e", "x", schema={"品牌": None}, kind="classify")
    (task,) = routes.choose(make_record(), event).tasks
    assert (task.name, task.kind, task.schema) == ("inline", "classify", {"品牌": None})
    both = ReviewEvent("e", "x", tasks=("ner",), schema={"品牌": None})
    assert names(routes.choose(make_record(), both)) == ["ner", "inline"]


def test_an_unknown_task_does_not_stop_its_siblings(routes: Routes, make_record: MakeRecord) -> None:
    """It is refused, and its name stays out of the message and of what a replay would run."""
    chosen = routes.choose(make_record(), ReviewEvent("e", "x", tasks=("ner", "我的电话", "sentiment")))
    assert names(chosen) == ["ner", "sentiment"]
    ((refused, error),) = chosen.refused
    assert refused == ()
    assert (error.stage, error.reason) == ("validate", "UnknownTask")
    assert "我的电话" not in error.message
    assert "sentiment" in error.message


def test_an_event_may_not_take_the_name_of_inline(routes: Routes, make_record: MakeRecord) -> None:
    """inline is no task that can be asked for by name, and a replay of it would run the event's schema again."""
    ((refused, error),) = routes.choose(make_record(), ReviewEvent("e", "x", tasks=("inline",))).refused
    assert (refused, error.reason) == ((), "UnknownTask")


def test_an_event_with_nothing_to_do_is_bad_input(routes: Routes, make_record: MakeRecord) -> None:
    """No tasks anywhere means no result, which a dead letter must report."""
    with pytest.raises(BadInput, match="free") as caught:
        routes.choose(make_record(topic="free"), ReviewEvent("e", "x"))
    assert (caught.value.stage, caught.value.reason) == ("validate", "NoTasks")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"sentiment", ["sentiment"]),
        (b" sentiment , ner", ["ner", "sentiment"]),
        (b"inline", ["inline"]),
        (b"", ["ner", "sentiment", "inline"]),
        (None, ["ner", "sentiment", "inline"]),
    ],
)
def test_a_replay_runs_only_what_failed(
    routes: Routes, make_record: MakeRecord, header: bytes | None, expected: list[str]
) -> None:
    """The header narrows the choice; it never widens it."""
    event = ReviewEvent("e", "x", tasks=("ner", "sentiment"), schema={"品牌": None})
    assert names(routes.choose(make_record(b"", ("rexstream-only-tasks", header)), event)) == expected


def test_a_replay_of_unknown_tasks_refuses_only_those_named(routes: Routes, make_record: MakeRecord) -> None:
    """A second unknown task that was not replayed makes no second dead letter."""
    event = ReviewEvent("e", "x", tasks=("a", "b"))
    chosen = routes.choose(make_record(b"", ("rexstream-only-tasks", b"b")), event)
    assert [refused for refused, _ in chosen.refused] == [("b",)]


def test_a_replay_cannot_run_what_its_route_does_not(routes: Routes, make_record: MakeRecord) -> None:
    """The header is anyone's to write: it narrows what the event may have, and gives it nothing more."""
    event = ReviewEvent("e", "x", tasks=("event", "ner"))
    chosen = routes.choose(make_record(b"", ("rexstream-only-tasks", b"event")), event)
    assert names(chosen) == []
    assert [refused for refused, _ in chosen.refused] == [("event",)]
    schema = ReviewEvent("e", "x", schema={"a": None})
    chosen = routes.choose(make_record(b"", ("rexstream-only-tasks", b"inline"), topic="any"), schema)
    assert (names(chosen), [refused for refused, _ in chosen.refused]) == ([], [("inline",)])


def test_a_replay_that_leaves_nothing_is_bad_input(routes: Routes, make_record: MakeRecord) -> None:
    """A task that the route no longer runs is said to be the reason."""
    with pytest.raises(BadInput, match="rexstream-only-tasks"):
        routes.choose(make_record(b"", ("rexstream-only-tasks", b"event")), ReviewEvent("e", "x"))


def test_routes_tell_their_inputs_formats_and_topics(routes: Routes) -> None:
    """The worker asks the routes for all that depends on the topic."""
    assert routes.inputs == ("reviews.raw", "free", "any")
    assert routes.route("free").format == "avro"
    assert routes.route("free").output_format == "json"
    assert routes.output_topic("reviews.raw", "ner") == "out.ner"
    assert routes.output_topic("reviews.raw", "inline") == "out"
    assert routes.output_topic("free", "inline") == "all"
    with pytest.raises(KeyError):
        routes.route("elsewhere")


def test_topics_of_a_pattern_have_its_route(make_record: MakeRecord) -> None:
    """A name wins over it; messages name the topic."""
    routes = Routes(
        [
            RouteConfig(input=r"^shop\..*$", tasks=("ner",), output="out.{task}", inline_schemas=False),
            RouteConfig(input="shop.own", tasks=("sentiment",), output="own", control_headers=False),
        ],
        TASKS,
    )
    assert names(routes.choose(make_record(topic="shop.a"), ReviewEvent("e", "x"))) == ["ner"]
    assert names(routes.choose(make_record(topic="shop.own"), ReviewEvent("e", "x"))) == ["sentiment"]
    assert [routes.output_topic("shop.b", "ner"), routes.output_topic("shop.own", "sentiment")] == ["out.ner", "own"]
    assert routes.route("shop.a").control_headers
    assert not routes.route("shop.own").control_headers
    event = ReviewEvent("e", "x", tasks=("event",), schema={"a": None})
    refused = routes.choose(make_record(topic="shop.a"), event).refused
    assert [error.message.partition("shop.a")[1] for _, error in refused] == ["shop.a", "shop.a"]
    with pytest.raises(KeyError):
        routes.route("other")


@pytest.mark.parametrize("schema", [None, {"属性词": None}])
def test_a_choice_in_a_field_task_is_refused_by_name(
    routes: Routes, make_record: MakeRecord, schema: dict[str, None] | None
) -> None:
    """Running the route's tasks instead would be a silent answer to another question."""
    event = ReviewEvent("e", "x", schema=schema, task="event")
    with pytest.raises(BadInput, match=r'"tasks": \["event"\].* routes\.fields') as caught:
        routes.choose(make_record(), event)
    assert (caught.value.stage, caught.value.reason) == ("validate", "InvalidEvent")
    assert names(routes.choose(make_record(), ReviewEvent("e", "x", task="crawl-7"))) == ["ner", "sentiment"]
