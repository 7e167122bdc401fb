"""Versions, labels and lists of models change under a running server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from consumer.serving.descriptors import PredictionLog
from consumer.serving.tensors import write_content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Caller = Any
Lab = Any
"""The classes of those names in this folder's conftest.py."""

pytestmark = pytest.mark.model


def until(true: Callable[[], bool]) -> None:
    """Return when it is true; the suite's timeout ends what never is."""
    while not true():
        time.sleep(0.01)


class Load:
    """Threads that call without a pause and count who answered."""

    def __init__(self, caller: Caller, threads: int = 4) -> None:
        self._caller = caller
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int, calls: int = 50) -> None:
        """Return when this version has answered so many calls more."""
        with self._changed:
            target = self.answers[version] + calls
            assert self._changed.wait_for(lambda: self.failures or self.answers[version] >= target, timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                version = self._caller.version()
            except grpc.RpcError as error:
                with self._changed:
                    self.failures.append(str(error))
                    self._changed.notify_all()
                return
            with self._changed:
                self.answers[version] += 1
                self._changed.notify_all()


def test_a_hot_swap_under_load_fails_no_call(lab: Lab) -> None:
    """Through two new versions and a fallback, every one of the concurrent calls is answered."""
    lab.add("1")
    with lab.serve() as (caller, catalog), Load(caller) as load:
        load.wait_for(1)
        for version in (2, 3):
            lab.add(str(version))
            catalog.poll()
            load.wait_for(version)
        lab.remove("3")
        catalog.poll()
        load.wait_for(2)
    assert load.failures == []
    assert set(load.answers) == {1, 2, 3}


def test_the_disk_is_followed_without_being_asked(lab: Lab) -> None:
    """The server polls by itself: a new version answers, the old one has ended."""
    lab.add("1")
    with lab.serve(poll_seconds=0.02) as (caller, _):
        assert caller.version() == 1
        lab.add("2")
        while caller.version() != 2:  # the suite's timeout ends a server that never swaps
            pass
        assert caller.status()[0] == (2, "AVAILABLE")


def test_versions_are_numbers_and_stay_as_loaded(lab: Lab) -> None:
    """``007`` is 7, other names are ignored, a replaced folder changes no answer, deleting the newest falls back."""
    lab.add("3")
    lab.add("latest")
    with lab.serve() as (caller, catalog):
        assert caller.status() == [(3, "AVAILABLE")]
        lab.add("007")
        catalog.poll()
        assert caller.status() == [(7, "AVAILABLE"), (3, "END")]
        lab.remove("007")
        lab.add("007", "triple")
        catalog.poll()
        assert list(caller.predict().outputs["y"].float_val) == [2.0, 2.0, 2.0]
        lab.remove("007")
        catalog.poll()
        assert caller.status() == [(7, "END"), (3, "AVAILABLE")]
        lab.add("007", "triple")
        catalog.poll()
        assert list(caller.predict().outputs["y"].float_val) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("content", [None, b"\xff\xff not a graph", b""], ids=["missing", "garbage", "empty"])
def test_a_broken_version_ends_and_the_old_one_serves(lab: Lab, content: bytes | None) -> None:
    """A version that is no SavedModel is END with an error, and replaces nothing."""
    lab.add("1")
    with lab.serve() as (caller, catalog):
        graph = lab.add("2") / "saved_model.pb"
        graph.unlink()
        if content is not None:
            graph.write_bytes(content)
        catalog.poll()
        assert caller.status() == [(2, "END"), (1, "AVAILABLE")]
        newest, _ = caller.statuses().model_version_status
        assert newest.status.error_code != 0
        assert newest.status.error_message
        assert caller.version() == 1


def test_a_version_without_its_weights_ends_with_tensorflow_s_error(lab: Lab) -> None:
    """A graph whose variables are missing is refused at load, not at the first call."""
    lab.add("1")
    with lab.serve() as (caller, catalog):
        draft = lab.add("draft")
        for file in (draft / "variables").iterdir():
            file.unlink()
        draft.rename(draft.with_name("2"))
        catalog.poll()
        assert caller.status() == [(2, "END"), (1, "AVAILABLE")]


def test_labels_and_reload(lab: Lab) -> None:
    """A new list replaces the old one whole; labels name loaded versions and are used by calls."""
    lab.add("1")
    lab.add("2", "triple")
    lab.add("5", model="other")
    base = {"name": "demo", "base_path": str(lab.models / "demo")}
    both = {**base, "model_version_policy": {"all": {}}}
    with lab.serve() as (caller, _):
        assert caller.version(model="other") == 5
        with pytest.raises(grpc.RpcError, match="Request to assign label to version 1 of model demo, which is not"):
            caller.reload({**both, "version_labels": {"stable": 1}})
        assert caller.reload(both).status.error_code == 0
        # It returns before other versions of models that it knew are loaded, and old ones unloaded.
        until(lambda: caller.status("other") == [(5, "END")])
        assert caller.refusal(model="other") == ("NOT_FOUND", "Servable not found for request: Latest(other)")
        assert caller.status() == [(2, "AVAILABLE"), (1, "AVAILABLE")]
        caller.reload({**both, "version_labels": {"stable": 1, "canary": 2}})
        assert (caller.version(label="stable"), caller.version(label="canary"), caller.version()) == (1, 2, 2)
        assert caller.version(version=1) == 1
        caller.reload(base)
        assert caller.refusal(label="stable")[0] == "INVALID_ARGUMENT"
        until(lambda: caller.status(version=1) == [(1, "END")])
        assert caller.refusal(version=1) == ("NOT_FOUND", "Servable not found for request: Specific(demo, 1)")


def test_a_list_with_a_new_model_is_answered_when_that_is_there(lab: Lab) -> None:
    """With no folder for it the call ends at its deadline, and models that were there before go on."""
    lab.add("1")
    base = {"name": "demo", "base_path": str(lab.models / "demo")}
    late = {"name": "late", "base_path": str(lab.models / "late")}
    with lab.serve(poll_seconds=0.05) as (caller, _):
        with pytest.raises(grpc.RpcError, match="Deadline") as caught:
            caller.reload(base, late, timeout=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caller.version() == 1
        caller.reload(base, timeout=30.0)
        lab.add("4", model="late")
        caller.reload(base, late, timeout=30.0)
        assert caller.version(model="late") == 4


def test_outputs_can_be_content(lab: Lab) -> None:
    """With the option, outputs are tensor_content as from r2.19, with the same values."""
    lab.add("1")
    with lab.serve(tensor_content=True) as (caller, _):
        output = caller.predict().outputs["y"]
        assert not output.float_val
        assert np.frombuffer(output.tensor_content, np.float32).tolist() == [2.0, 2.0, 2.0]


def record(signature: str) -> Any:
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    write_content(log.predict_log.request.inputs["x"], np.ones((1, 3), np.float32))
    return log


def warm_up(version: Path, *records: Any) -> None:
    import tensorflow as tf

    (version / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for entry in records:
            writer.write(entry.SerializeToString())


@pytest.mark.parametrize(
    ("last", "code", "text"),
    [
        (record("serving_default"), 0, ""),
        (record("nope"), 9, 'Serving signature key "nope" not found.'),
        (PredictionLog(session_run_log={}), 12, "Unsupported log_type for warmup: session_run_log"),
    ],
    ids=["good", "failing", "of another kind"],
)
def test_warmup_records_run_before_a_version_is_available(lab: Lab, last: Any, code: int, text: str) -> None:
    """A version whose records all run becomes AVAILABLE; one that fails on a record ends with that record's error."""
    lab.add("1")
    with lab.serve() as (caller, catalog):
        draft = lab.add("draft")
        warm_up(draft, record("matmul"), last)
        draft.rename(draft.with_name("2"))
        catalog.poll()
        newest, _ = caller.statuses().model_version_status
        assert (newest.status.error_code, newest.status.error_message) == (code, text)
        assert caller.version() == (1 if code else 2)


@pytest.mark.parametrize("length", [10**6, 2**40, 2**64 - 5])
def test_a_warmup_record_that_claims_more_than_the_file_has(lab: Lab, length: int) -> None:
    """Is refused before TensorFlow asks for that much memory, which would end the process."""
    from consumer.local.catalog import Refusal
    from consumer.local.saved_model import SavedModel

    version = lab.add("1")
    warm_up(version, record("matmul"))
    with (version / "assets.extra" / "tf_serving_warmup_requests").open("ab") as records:
        header = length.to_bytes(8, "little")
        records.write(header + masked_crc(header).to_bytes(4, "little") + b"x")
    with pytest.raises(Refusal, match="truncated record"):
        SavedModel(version, 1)


def masked_crc(content: bytes) -> int:
    """The checksum of a TFRecord: CRC-32C, turned and shifted so that a checksum of checksums is no trivial one."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_more_calls_than_threads_wait_their_turn(lab: Lab) -> None:
    """Where the real server refuses with RESOURCE_EXHAUSTED, the local one answers all of a hundred calls at once."""
    lab.add("1")
    with lab.serve() as (caller, _), Load(caller, threads=100) as load:
        load.wait_for(1, calls=300)
    assert load.failures == []


def test_a_model_that_cannot_load_stops_the_start(lab: Lab) -> None:
    """The port stays closed unless every model has a version that loads."""
    from consumer.local.catalog import Refusal

    lab.add("1")
    (lab.add("1", model="broken") / "saved_model.pb").unlink()
    with (
        pytest.raises(Refusal, match=r"1 model\(s\) did not become available: {{{name: broken version: 1} due"),
        lab.serve(),
    ):
        pass


def test_a_port_in_use_is_refused() -> None:
    """A second server on the port fails to start instead of sharing the first one's calls."""
    from consumer.local.catalog import Catalog
    from consumer.local.model_server import ModelServer

    first, second = (ModelServer(Catalog([], lambda _: pytest.fail("nothing to load")), cpus=1) for _ in range(2))
    port = int(first.start("127.0.0.1", 0, 3600).rpartition(":")[2])
    try:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            second.start("127.0.0.1", port, 3600)
    finally:
        first.stop()
        second.stop()
