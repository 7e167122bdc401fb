"""The client against a gRPC server that answers as the test says."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from serving_stub import compact, refuse, respond, serving, typed
from stub_server import StubServer, write_bundle

from consumer.config.tree import ModelConfig
from consumer.extraction.window import Window
from consumer.serving.bundle import load_bundle
from consumer.serving.client import TfServingClient
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.tensors import write_content

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from serving_stub import Reply

    from consumer.serving.bundle import Bundle
    from consumer.serving.protocol import Answer


def window(length: int, text_start: int = 4) -> Window:
    ids = np.full(length, 7, np.int32)
    return Window(ids, np.arange(length, dtype=np.int32), np.zeros(length, np.int32), text_start)


def ask(
    bundle: Bundle,
    reply: Reply,
    windows: Sequence[Window],
    *,
    padded_length: int = 16,
    timeout: float = 20.0,
    version: int | None = None,
    label: str | None = None,
) -> Answer:
    """One predict call against a server that replies so."""

    async def scenario() -> Answer:
        async with serving(predict=reply) as target:
            client = TfServingClient(ModelConfig(target=target, version=version, label=label), bundle)
            try:
                return await client.predict(windows, padded_length, timeout)
            finally:
                await client.close()

    return asyncio.run(scenario())


def fails(bundle: Bundle, reply: Reply, *, timeout: float = 20.0) -> ServingError:
    with pytest.raises(ServingError) as caught:
        ask(bundle, reply, [window(10)], timeout=timeout)
    return caught.value


def unused_target() -> str:
    """An address of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("write", [typed, write_content], ids=["typed", "content"])
def test_cells_come_back_per_window(bundle: Bundle, write: Any) -> None:
    """Either encoding gives each window its own cells, with the version that answered."""
    outputs = compact(bundle.contract, [(5, 6, 1.5), (6, 6, -2.0)], [], [(11, 4, 0.25)])
    answer = ask(bundle, lambda *_: respond(outputs, 12, write), [window(10), window(8), window(12)])
    assert [list(zip(c.rows, c.columns, c.logits, strict=True)) for c in answer.cells] == [
        [(5, 6, 1.5), (6, 6, -2.0)],
        [],
        [(11, 4, 0.25)],
    ]
    assert (answer.model_name, answer.model_version, answer.signature) == ("rexuninlu", "12", "serving_default")
    assert answer.overflowed == ()
    assert answer.seconds > 0


def test_the_request_is_compact_and_exact(bundle: Bundle) -> None:
    """Five int32 tensors as content of exactly their shape, for the model and signature, and no output filter."""
    seen = []

    def reply(request: Any, _: Any) -> Any:
        seen.append(request)
        return respond(compact(bundle.contract, [], []))

    ask(bundle, reply, [window(10), window(13, text_start=5)])
    (request,) = seen
    assert (request.model_spec.name, request.model_spec.signature_name) == ("rexuninlu", "serving_default")
    assert request.model_spec.WhichOneof("version_choice") is None
    assert not request.output_filter
    shapes = {name: [dim.size for dim in proto.tensor_shape.dim] for name, proto in request.inputs.items()}
    assert shapes == {
        "input_ids": [2, 16],
        "segment": [2, 16],
        "position_ids": [2, 16],
        "length": [2, 1],
        "text_start": [2, 1],
    }
    for name, proto in request.inputs.items():
        assert proto.dtype == 3
        assert len(proto.tensor_content) == 4 * shapes[name][0] * shapes[name][1]
        assert not proto.int_val
    assert np.frombuffer(request.inputs["length"].tensor_content, np.int32).tolist() == [10, 13]
    assert np.frombuffer(request.inputs["text_start"].tensor_content, np.int32).tolist() == [4, 5]
    segment = np.frombuffer(request.inputs["segment"].tensor_content, np.int32).reshape(2, 16)
    assert segment[0].tolist() == [0] * 10 + [-1] * 6


@pytest.mark.parametrize(
    ("version", "label", "choice"), [(7, None, "version"), (None, "canary", "version_label"), (None, None, None)]
)
def test_the_configured_version_is_asked(
    bundle: Bundle, version: int | None, label: str | None, choice: str | None
) -> None:
    """A number or a label in the configuration is what the request names."""
    seen = []

    def reply(request: Any, _: Any) -> Any:
        seen.append(request.model_spec)
        return respond(compact(bundle.contract, []))

    ask(bundle, reply, [window(10)], version=version, label=label)
    (spec,) = seen
    assert spec.WhichOneof("version_choice") == choice
    assert spec.version.value == (version or 0)
    assert spec.version_label == (label or "")


def test_only_the_window_that_overflowed_is_repeated(bundle: Bundle) -> None:
    """A window with more cells than K is asked again on ``dense`` alone, at its own length, and gets all its cells."""
    requests = []
    logits = np.full((1, 16, 16), -1.0, np.float32)
    logits[0, 4:8, 4:8] = 2.0

    def reply(request: Any, _: Any) -> Any:
        requests.append(request)
        if request.model_spec.signature_name == "dense":
            return respond({"logits": logits, "contract": np.array([[bundle.contract]], np.int32)})
        outputs = compact(bundle.contract, [(4, 4, 9.0)], [(4, 4, 9.0)] * 4)
        outputs["count"] = np.array([[1], [10]], np.int32)
        return respond(outputs)

    answer = ask(bundle, reply, [window(20), window(11)], padded_length=24)
    assert answer.overflowed == (1,)
    assert answer.cells[0].rows.tolist() == [4]
    spans = [(r, c) for r in range(4, 8) for c in range(r, 8)]
    assert list(zip(answer.cells[1].rows, answer.cells[1].columns, strict=True)) == spans
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "dense"]
    assert [dim.size for dim in requests[1].inputs["input_ids"].tensor_shape.dim] == [1, 16]


def test_exactly_k_cells_are_no_overflow(bundle: Bundle) -> None:
    """A window that fills its row is answered by the compact signature."""
    full = [(4, 4, 1.0), (4, 5, 1.0), (5, 5, 1.0), (5, 6, 1.0)]
    answer = ask(bundle, lambda *_: respond(compact(bundle.contract, full)), [window(10)])
    assert answer.overflowed == ()
    assert len(answer.cells[0].rows) == 4


def test_a_swap_between_batch_and_repeat_is_transient(bundle: Bundle) -> None:
    """When another version answers the repeat, the whole batch is to be sent again."""

    def reply(request: Any, _: Any) -> Any:
        contract = {"contract": np.array([[bundle.contract]], np.int32)}
        if request.model_spec.signature_name == "dense":
            return respond({"logits": np.zeros((1, 16, 16), np.float32), **contract}, version=4)
        return respond(compact(bundle.contract, [], count=5), version=3)

    error = fails(bundle, reply)
    assert (error.failure, error.code) == (Failure.TRANSIENT, "ABORTED")
    assert "from version 3 to 4" in error.message


def test_another_contract_is_a_deployment_fault(bundle: Bundle) -> None:
    """A model with another tokenizer is noticed by its hash, also when its cells have another shape."""
    other = compact(bundle.contract + 1, [])
    other["cells"] = np.zeros((1, 8), np.int32)
    error = fails(bundle, lambda *_: respond(other))
    assert (error.failure, error.code) == (Failure.DEPLOYMENT, "CONTRACT")
    assert str(bundle.contract) in error.message
    assert "model.bundle" in error.message


def test_the_dense_answer_is_held_to_the_contract_too(bundle: Bundle) -> None:
    """The repeat of an overflowed window is checked like the batch."""

    def reply(request: Any, _: Any) -> Any:
        if request.model_spec.signature_name == "dense":
            return respond({"logits": np.zeros((1, 16, 16), np.float32), "contract": np.array([[0]], np.int32)})
        return respond(compact(bundle.contract, [], count=5))

    assert fails(bundle, reply).code == "CONTRACT"


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("cells", np.zeros((1, 8), np.int32), "shape"),
        ("cells", np.zeros((2, 4), np.int32), "shape"),
        ("cells", np.zeros((1, 4), np.float32), "is float"),
        ("cells", np.full((1, 4), 10 << 16, np.int32), "outside its window"),
        ("cells", np.full((1, 4), 10, np.int32), "outside its window"),
        ("cells", np.full((1, 4), -1, np.int32), "outside its window"),
        ("scores", np.full((1, 4), np.nan, np.float32), "not finite"),
        ("scores", np.full((1, 4), np.inf, np.float32), "not finite"),
        ("scores", np.zeros((1, 4), np.int32), "is int32"),
        ("count", np.array([[-1]], np.int32), "-1"),
        ("count", np.array([1], np.int32), "shape"),
        ("contract", np.array([[1.0]], np.float32), "is float"),
    ],
)
def test_an_answer_that_cannot_be_true_is_a_deployment_fault(
    bundle: Bundle, name: str, array: np.ndarray[Any, Any], what: str
) -> None:
    """Wrong shapes, dtypes, values that are not finite and cells outside the window stop the worker."""
    outputs = {**compact(bundle.contract, [(4, 4, 1.0)]), name: array}
    error = fails(bundle, lambda *_: respond(outputs))
    assert (error.failure, error.code) == (Failure.DEPLOYMENT, "ANSWER")
    assert name in error.message
    assert what in error.message


def test_bytes_that_are_no_message_are_a_deployment_fault(bundle: Bundle) -> None:
    """Something that is not TensorFlow Serving may answer at the address."""
    error = fails(bundle, lambda *_: b"\xff\xff\xff")
    assert (error.failure, error.code) == (Failure.DEPLOYMENT, "ANSWER")


@pytest.mark.parametrize(
    ("code", "message", "failure", "relief"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "indices[0] = 9 is not in [0, 5)", Failure.BATCH_FAULT, Relief.NONE),
        (grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "x" not found.', Failure.DEPLOYMENT, Relief.NONE),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Server Threadpool Exhausted",
            Failure.TRANSIENT,
            Relief.FEWER_IN_FLIGHT,
        ),
    ],
)
def test_a_refused_call_is_classified(
    bundle: Bundle, code: grpc.StatusCode, message: str, failure: Failure, relief: Relief
) -> None:
    """The status and text of the server arrive with their class, and a fault of the deployment with the way out."""
    error = fails(bundle, lambda _, context: refuse(context, code, message))
    assert (error.failure, error.relief, error.code) == (failure, relief, code.name)
    text, _, way = error.message.partition("; ")
    assert text == message
    assert bool(way) == (failure is Failure.DEPLOYMENT)


def test_a_foreign_bundle_is_named_with_the_model_that_answered(bundle: Bundle) -> None:
    """Both names and versions: whoever reads it need not look up which of several bundles is meant."""
    error = fails(bundle, lambda *_: respond(compact(bundle.contract ^ 1, []), 12))
    assert (error.failure, error.code) == (Failure.DEPLOYMENT, "CONTRACT")
    assert "bundle and served model do not belong together" in error.message
    assert bundle.name in error.message
    assert "model rexuninlu version 12 at 127.0.0.1:" in error.message
    assert f"contract {bundle.contract ^ 1}" in error.message


def test_a_server_that_stays_silent_hits_the_deadline(bundle: Bundle) -> None:
    """A call that is not answered in its time is transient."""

    async def silence() -> None:
        await asyncio.Event().wait()

    error = fails(bundle, lambda *_: silence(), timeout=0.2)
    assert (error.failure, error.code) == (Failure.TRANSIENT, "DEADLINE_EXCEEDED")


def test_the_repeat_shares_the_deadline_of_its_batch(bundle: Bundle) -> None:
    """The dense call has what the batch left of its time."""
    left: list[float | None] = []

    async def slowly(response: Any) -> Any:
        await asyncio.sleep(0.3)  # the time that the batch takes
        return response

    def reply(request: Any, context: Any) -> Any:
        left.append(context.time_remaining())
        if request.model_spec.signature_name == "dense":
            contract = np.array([[bundle.contract]], np.int32)
            return respond({"logits": np.zeros((1, 16, 16), np.float32), "contract": contract})
        return slowly(respond(compact(bundle.contract, [], count=5)))

    ask(bundle, reply, [window(10)], timeout=8.0)  # above 10 s gRPC rounds what it tells the server
    assert left[1] is not None
    assert left[1] < 8.0 - 0.2


def test_nobody_listening_is_transient(bundle: Bundle) -> None:
    """A server that is not there is an outage, not a fault of the batch."""

    async def scenario() -> None:
        client = TfServingClient(ModelConfig(target=unused_target()), bundle)
        try:
            with pytest.raises(ServingError) as caught:
                await client.predict([window(10)], 16, 5.0)
            assert (caught.value.failure, caught.value.code) == (Failure.TRANSIENT, "UNAVAILABLE")
            assert not await client.ready()
        finally:
            await client.close()

    asyncio.run(scenario())


def test_answers_above_four_megabytes_arrive(bundle: Bundle) -> None:
    """gRPC's default limit for answers does not apply."""
    outputs = {**compact(bundle.contract, []), "extra": np.zeros(1_500_000, np.float32)}
    assert ask(bundle, lambda *_: respond(outputs, write=write_content), [window(10)]).model_version == "3"


def test_a_known_good_window_that_is_refused_is_no_fault_of_the_window(bundle: Bundle) -> None:
    """Whatever the model says of it: bundle and model are named. Other failures stay what they are."""
    refusals = [
        (grpc.StatusCode.INVALID_ARGUMENT, "indices[0,1] = 9 is not in [0, 5)", Failure.DEPLOYMENT),
        (grpc.StatusCode.UNAVAILABLE, "away", Failure.TRANSIENT),
    ]

    async def scenario(code: grpc.StatusCode, message: str) -> ServingError:
        async with serving(predict=lambda _, context: refuse(context, code, message)) as target:
            client = TfServingClient(ModelConfig(target=target, version=4), bundle)
            try:
                with pytest.raises(ServingError) as caught:
                    await client.known_good(window(10), 20.0)
                return caught.value
            finally:
                await client.close()

    for code, message, failure in refusals:
        error = asyncio.run(scenario(code, message))
        assert (error.failure, error.code) == (failure, code.name)
        named = "bundle and served model do not belong together" in error.message
        assert named == (failure is Failure.DEPLOYMENT)
        assert not named or "model rexuninlu version 4 at 127.0.0.1:" in error.message


def test_a_call_in_flight_outlives_the_renewal_of_its_connection(tmp_path: Path) -> None:
    """It is answered on the old connection, which ends after it, while new calls go on the new one."""
    server = StubServer()
    held, answer = threading.Event(), threading.Event()

    def hold_the_first(*_: Any) -> None:
        if not held.is_set():
            held.set()
            assert answer.wait(60)

    server.before = hold_the_first

    async def scenario() -> list[int]:
        client = TfServingClient(ModelConfig(target=server.target), load_bundle(write_bundle(tmp_path)))
        first = asyncio.create_task(client.predict([window(10)], 16, 60.0))
        assert await asyncio.to_thread(held.wait, 60)
        ended = asyncio.create_task(client.renew())
        second = await client.predict([window(10)], 16, 60.0)
        assert not ended.done()
        answer.set()
        answers = [await first, second]
        await ended
        await client.close()
        return [len(each.cells) for each in answers]

    try:
        assert asyncio.run(scenario()) == [1, 1]
    finally:
        answer.set()
        server.stop()


def test_a_token_that_the_model_does_not_have_is_no_fault_of_the_window(bundle: Bundle) -> None:
    """It was sent because the bundle has it, so the served vocabulary is smaller; an index that was not sent is not."""
    sent = int(window(10).input_ids[1])

    async def scenario(index: int) -> ServingError:
        message = f"indices[0,1] = {index} is not in [0, {index})"
        async with serving(
            predict=lambda _, context: refuse(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        ) as target:
            client = TfServingClient(ModelConfig(target=target, version=4), bundle)
            try:
                with pytest.raises(ServingError) as caught:
                    await client.predict([window(12), window(10)], 16, 20.0)
                return caught.value
            finally:
                await client.close()

    error = asyncio.run(scenario(sent))
    assert error.failure is Failure.DEPLOYMENT
    assert f"the bundle has a token {sent}, and the served vocabulary only {sent} tokens" in error.message
    assert "model rexuninlu version 4 at 127.0.0.1:" in error.message
    assert asyncio.run(scenario(999_999)).failure is Failure.BATCH_FAULT
