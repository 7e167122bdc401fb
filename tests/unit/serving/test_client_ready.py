"""When the client calls the model server ready."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from serving_stub import refuse, serving

from consumer.config.tree import ModelConfig
from consumer.serving.client import TfServingClient
from consumer.serving.descriptors import GET_MODEL_STATUS

if TYPE_CHECKING:
    from consumer.serving.bundle import Bundle

LOADING, AVAILABLE, END = 20, 30, 50


def status(*states: tuple[int, int]) -> Any:
    response = GET_MODEL_STATUS.response()
    for version, state in states:
        response.model_version_status.add(version=version, state=state)
    return response


@pytest.mark.parametrize(
    ("states", "ready"),
    [
        ([(2, AVAILABLE)], True),
        ([(3, LOADING), (2, AVAILABLE), (1, END)], True),
        ([(2, LOADING), (1, END)], False),
        ([(2, END)], False),
        ([], False),
    ],
)
def test_ready_means_available(bundle: Bundle, states: list[tuple[int, int]], ready: bool) -> None:
    """A server with any AVAILABLE version of the model is ready."""

    async def scenario() -> None:
        async with serving(status=lambda *_: status(*states)) as target:
            client = TfServingClient(ModelConfig(target=target), bundle)
            assert await client.ready() is ready
            await client.close()

    asyncio.run(scenario())


def test_readiness_asks_for_the_configured_version(bundle: Bundle) -> None:
    """A configured number is what must be AVAILABLE; a label, which the server ignores here, is not sent."""
    seen = []

    def reply(request: Any, _: Any) -> Any:
        seen.append(request.model_spec)
        return status((7, AVAILABLE))

    async def scenario() -> None:
        async with serving(status=reply) as target:
            for config in (ModelConfig(target=target, version=7), ModelConfig(target=target, label="canary")):
                client = TfServingClient(config, bundle)
                assert await client.ready()
                await client.close()

    asyncio.run(scenario())
    assert [spec.WhichOneof("version_choice") for spec in seen] == ["version", None]
    assert seen[0].version.value == 7


def test_a_busy_server_does_not_change_readiness(bundle: Bundle) -> None:
    """RESOURCE_EXHAUSTED leaves the last answer standing; NOT_FOUND and rubbish do not."""
    replies: list[Any] = [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        status((1, AVAILABLE)),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        status((1, AVAILABLE)),
        b"\xff\xff\xff",
    ]

    def reply(_: Any, context: Any) -> Any:
        answer = replies.pop(0)
        return refuse(context, answer, "") if isinstance(answer, grpc.StatusCode) else answer

    async def scenario() -> list[bool]:
        async with serving(status=reply) as target:
            client = TfServingClient(ModelConfig(target=target), bundle)
            found = [await client.ready() for _ in range(7)]
            await client.close()
            return found

    assert asyncio.run(scenario()) == [False, True, True, False, False, True, False]


def test_all_versions_are_told_whichever_is_configured(bundle: Bundle) -> None:
    """For a message about one that is not there; nothing where the server does not tell."""
    seen = []

    def reply(request: Any, _: Any) -> Any:
        seen.append(request.model_spec.version.value)
        return status((7, AVAILABLE), (3, END))

    async def scenario() -> None:
        async with serving(status=reply) as target:
            client = TfServingClient(ModelConfig(target=target, version=9), bundle)
            assert await client.loaded() == "version 3 END, version 7 AVAILABLE"
        assert await client.loaded() == ""
        await client.close()

    asyncio.run(scenario())
    assert seen == [0]
