"""Versions come and go under a catalog whose models are stubs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from consumer.local.catalog import Catalog, Refusal, State
from consumer.local.model_folders import ModelSource, VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class StubModel:
    """Knows its folder and whether it was closed."""

    signatures: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closed = False

    def run(self, feeds: Mapping[str, Any], fetches: Sequence[str]) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Disk:
    """A model folder, and a loader that refuses folders with a file named ``broken``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loaded: list[StubModel] = []
        self.tried: list[str] = []
        self.catalog = Catalog([ModelSource("demo", root)], self.load)

    def load(self, folder: Path) -> StubModel:
        self.tried.append(folder.name)
        if (folder / "broken").exists():
            raise Refusal(grpc.StatusCode.DATA_LOSS, f"{folder.name} is broken")
        self.loaded.append(StubModel(folder))
        return self.loaded[-1]

    def add(self, name: str, *, broken: bool = False) -> None:
        (self.root / name).mkdir()
        if broken:
            (self.root / name / "broken").write_text("")

    def remove(self, name: str) -> None:
        for file in (self.root / name).iterdir():
            file.unlink()
        (self.root / name).rmdir()

    def closed(self) -> list[bool]:
        return [model.closed for model in self.loaded]

    def names(self) -> list[str]:
        return [model.folder.name for model in self.loaded]

    def states(self, name: str = "demo") -> dict[int, State]:
        return {number: state for number, state, _ in self.catalog.states(name)}


def spec(name: str = "demo", version: int | None = None, label: str | None = None) -> Any:
    """Stands in for a ModelSpec message."""
    choice = "version" if version is not None else "version_label" if label is not None else None
    return SimpleNamespace(
        name=name, version=SimpleNamespace(value=version), version_label=label, WhichOneof=lambda _: choice
    )


def refused(catalog: Catalog, asked: Any) -> Refusal:
    with pytest.raises(Refusal) as caught, catalog.use(asked):
        pass
    return caught.value


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A catalog that serves version 1."""
    disk = Disk(tmp_path)
    disk.add("1")
    disk.catalog.poll()
    return disk


def test_a_new_version_loads_before_the_old_one_unloads(disk: Disk) -> None:
    """While version 2 loads, version 1 still answers; afterwards it is closed."""
    available_while_loading: list[list[int]] = []
    load = disk.load

    def watch(folder: Path) -> StubModel:
        available_while_loading.append(disk.catalog.available()["demo"])
        assert disk.states()[2] is State.LOADING
        return load(folder)

    disk.catalog._load = watch
    disk.add("2")
    disk.catalog.poll()
    assert available_while_loading == [[1]]
    assert disk.states() == {2: State.AVAILABLE, 1: State.END}
    assert disk.closed() == [True, False]


def test_a_call_keeps_its_version_through_a_swap(disk: Disk) -> None:
    """A version in use is unloaded when its last call has ended, not before; new calls get the new one."""
    disk.add("2")
    with disk.catalog.use(spec()) as (first, _):
        with disk.catalog.use(spec()):
            disk.catalog.poll()
            assert disk.states() == {2: State.AVAILABLE, 1: State.UNLOADING}
        assert disk.closed() == [False, False]
        with disk.catalog.use(spec()) as (second, _):
            assert (first, second) == (1, 2)
    assert disk.closed() == [True, False]
    assert disk.states()[1] is State.END


def test_a_version_replaced_in_place_is_not_reloaded(disk: Disk) -> None:
    """Changed files of a loaded version change nothing."""
    (disk.root / "1" / "saved_model.pb").write_text("another")
    disk.catalog.poll()
    assert disk.names() == ["1"]


def test_deleting_the_newest_falls_back(disk: Disk) -> None:
    """The version before is loaded again, then the deleted one unloads."""
    disk.add("2")
    disk.catalog.poll()
    disk.remove("2")
    disk.catalog.poll()
    assert disk.names() == ["1", "2", "1"]
    assert disk.states() == {2: State.END, 1: State.AVAILABLE}


def test_a_folder_that_vanishes_unloads_nothing(disk: Disk) -> None:
    """A base path that cannot be read leaves what is served alone; an empty one unloads it."""
    moved = disk.root.rename(disk.root.with_name("moved"))
    disk.catalog.poll()
    assert disk.catalog.available() == {"demo": [1]}
    moved.rename(disk.root)
    disk.remove("1")
    disk.catalog.poll()
    assert disk.catalog.available() == {"demo": []}


def test_a_broken_version_ends_with_its_error_and_the_old_one_stays(disk: Disk) -> None:
    """What cannot be loaded replaces nothing, and is not tried again while its files stay the same."""
    disk.add("2", broken=True)
    disk.catalog.poll()
    disk.catalog.poll()
    (newest, state, error), (oldest, kept, _) = disk.catalog.states("demo")
    assert (newest, state, oldest, kept) == (2, State.END, 1, State.AVAILABLE)
    assert error is not None
    assert (error.code, error.message) == (grpc.StatusCode.DATA_LOSS, "2 is broken")
    assert disk.tried == ["1", "2"]


def test_a_broken_version_is_tried_again_once_its_files_change(disk: Disk) -> None:
    """A folder that was seen half copied is served when it is whole."""
    disk.add("2", broken=True)
    disk.catalog.poll()
    (disk.root / "2" / "broken").unlink()
    disk.catalog.poll()
    assert disk.states() == {2: State.AVAILABLE, 1: State.END}


def test_lookups_are_refused_in_the_server_s_words(disk: Disk) -> None:
    """Unknown models, versions and labels have the real server's statuses and texts."""
    cases = {
        "Servable not found for request: Latest(nomodel)": spec("nomodel"),
        "Servable not found for request: Specific(nomodel, 3)": spec("nomodel", 3),
        "Servable not found for request: Specific(demo, 99)": spec(version=99),
        "ModelSpec has no name specified.": spec(""),
        "Unrecognized servable version label: canary": spec(label="canary"),
        "Unrecognized servable version label: ": spec(label=""),
    }
    for text, asked in cases.items():
        error = refused(disk.catalog, asked)
        assert error.message == text
        assert error.code.name == ("NOT_FOUND" if "Servable not found" in text else "INVALID_ARGUMENT")


def test_a_label_names_only_a_version_that_is_loaded(disk: Disk) -> None:
    """A label must point at an available version when it is set; then calls can use it."""
    disk.add("2")
    both = [ModelSource("demo", disk.root, VersionPolicy(latest=2))]
    with pytest.raises(Refusal, match="Request to assign label to version 2 of model demo") as caught:
        disk.catalog.replace(both, {"demo": {"canary": 2}})
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert disk.catalog.available() == {"demo": [1]}
    disk.catalog.replace(both, {})
    disk.catalog.poll()
    disk.catalog.replace(both, {"demo": {"canary": 2, "stable": 1}})
    for label, version in (("canary", 2), ("stable", 1)):
        with disk.catalog.use(spec(label=label)) as (number, _):
            assert number == version
    with disk.catalog.use(spec()) as (number, _):
        assert number == 2


def test_a_new_list_replaces_the_whole_list(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Models that are not in the new list are unloaded; new ones are available when the call returns."""
    other = tmp_path_factory.mktemp("other")
    (other / "5").mkdir()
    disk.catalog.replace([ModelSource("other", other)], {})
    assert disk.catalog.available() == {"other": [5]}
    assert refused(disk.catalog, spec()).message == "Servable not found for request: Latest(demo)"
    assert disk.states() == {1: State.END}
    disk.catalog.replace([ModelSource("demo", disk.root)], {})
    assert disk.catalog.available() == {"demo": [1]}


def test_a_new_model_that_does_not_load_is_reported(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A list with a broken new model is refused with the reason, and the old models go on."""
    other = tmp_path_factory.mktemp("other")
    (other / "5").mkdir()
    (other / "5" / "broken").write_text("")
    sources = [ModelSource("demo", disk.root), ModelSource("other", other)]
    text = r"1 model\(s\) did not become available: {{{name: other version: 5} due to error: DATA_LOSS: 5 is broken}, }"
    with pytest.raises(Refusal, match=text) as caught:
        disk.catalog.replace(sources, {})
    assert caught.value.code is grpc.StatusCode.UNKNOWN
    with disk.catalog.use(spec()) as (number, _):
        assert number == 1


def test_other_versions_of_a_listed_model_are_left_to_the_next_poll(disk: Disk) -> None:
    """The call returns before they are loaded, as in the real server."""
    disk.add("2")
    disk.catalog.replace([ModelSource("demo", disk.root, VersionPolicy(latest=2))], {})
    assert disk.catalog.available() == {"demo": [1]}
    disk.catalog.poll()
    assert disk.catalog.available() == {"demo": [2, 1]}


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "no version"])
def test_a_new_model_is_waited_for_until_it_appears(
    disk: Disk, tmp_path_factory: pytest.TempPathFactory, there: bool
) -> None:
    """A list whose new model has no folder, or an empty one, is held up like every list after it; calls are not."""
    late = tmp_path_factory.mktemp("models") / "late"
    if there:
        late.mkdir()
    sources = [ModelSource("demo", disk.root), ModelSource("late", late)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(disk.catalog.replace, sources, {})
        assert wait([first], timeout=0.5).done == set()
        second = pool.submit(disk.catalog.replace, sources[:1], {})
        assert wait([first, second], timeout=0.5).done == set()
        with disk.catalog.use(spec()) as (number, _):
            assert number == 1
        (late / "3").mkdir(parents=True)
        disk.catalog.poll()
        first.result(timeout=60)
        second.result(timeout=60)


def test_a_caller_that_goes_away_ends_the_wait(disk: Disk) -> None:
    """The next list is taken then, which the real server would not do."""
    missing = ModelSource("missing", disk.root / "not" / "there")
    with pytest.raises(Refusal, match="CANCELLED: nobody waits for missing"):
        disk.catalog.replace([missing], {}, lambda: False)
    disk.catalog.replace([ModelSource("demo", disk.root)], {})
    assert disk.catalog.available() == {"demo": [1]}


def test_a_missing_folder_holds_up_what_is_loaded_of_others(
    disk: Disk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All folders are followed, or none: so does the real server."""
    other = tmp_path_factory.mktemp("models") / "other"
    (other / "1").mkdir(parents=True)
    disk.catalog.replace([ModelSource("demo", disk.root), ModelSource("other", other)], {})
    gone = other.rename(other.with_name("gone"))
    disk.add("2")
    disk.catalog.poll()
    assert disk.catalog.available() == {"demo": [1], "other": [1]}
    gone.rename(other)
    disk.catalog.poll()
    assert disk.catalog.available() == {"demo": [2], "other": [1]}


def test_closing_unloads_everything(disk: Disk) -> None:
    """No model is left open, and none is found."""
    disk.catalog.close()
    assert disk.closed() == [True]
    assert "Latest(demo)" in refused(disk.catalog, spec()).message
