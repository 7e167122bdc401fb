"""The configuration file is read again: the canary's share at once, all else at the next start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing

from consumer.config.loading import load_config
from consumer.worker.config_watch import ConfigWatch

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.config.canary import CanaryConfig
    from consumer.config.tree import Config

BEFORE = "{label: stable, canary: {label: canary, share: 0.1}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.yaml"
    path.write_text(f"model: {BEFORE}")
    return path


def watch(file: Path, *overrides: str) -> ConfigWatch:
    def reload() -> object:
        return load_config(str(file), {}, overrides)

    return ConfigWatch(reload(), reload, str(file))  # type: ignore[arg-type]


def settled(looks: ConfigWatch) -> CanaryConfig | None:
    """What is handed over once the content is the same at two looks."""
    assert looks.changed() is None
    return looks.changed()


def test_a_file_that_is_half_written_changes_nothing(file: Path) -> None:
    """Without the canary's section it would be valid, and the share 0: one look is not believed."""
    looks = watch(file)
    file.write_text("model: {label: stable}")
    assert looks.changed() is None
    file.write_text(f"model: {BEFORE.replace('0.1', '0.2')}")
    found = settled(looks)
    assert found is not None
    assert found.share == 0.2
    file.write_text("model: {label: stable}")
    assert looks.changed() is None
    file.write_text(f"model: {BEFORE.replace('0.1', '0.2')}")
    assert settled(looks) is None
    assert settled(looks) is None


def test_a_changed_share_is_handed_over_once(file: Path) -> None:
    """And what overrides the file goes on to win."""
    looks, fixed = watch(file), watch(file, "model.canary.share=0.1")
    assert settled(looks) is None
    file.write_text("model: {label: stable, canary: {label: canary, share: 0.5, slower: 5}}")
    found = settled(looks)
    assert found is not None
    assert (found.share, found.slower, found.label) == (0.5, 5.0, "canary")
    assert settled(looks) is None
    other = settled(fixed)
    assert other is not None
    assert (other.share, other.slower) == (0.1, 5.0)


def test_a_link_that_is_turned_is_seen(file: Path, tmp_path: Path) -> None:
    """As Kubernetes changes a mounted ConfigMap: times and sizes may be the same."""
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    looks = watch(link)
    (tmp_path / "new.yaml").write_text(f"model: {BEFORE.replace('0.1', '0.2')}")
    (tmp_path / "turned").symlink_to(tmp_path / "new.yaml")
    (tmp_path / "turned").rename(link)
    found = settled(looks)
    assert found is not None
    assert found.share == 0.2


def test_a_canary_that_is_removed_has_no_share(file: Path) -> None:
    """Its section is waited for by the next start only."""
    looks = watch(file)
    file.write_text("model: {label: stable}")
    with structlog.testing.capture_logs() as lines:
        found = settled(looks)
    assert found is not None
    assert found.share == 0
    assert [line["keys"] for line in lines if "keys" in line] == [["model.canary"]]


@pytest.mark.parametrize(("share", "taken"), [("0.5", None), ("0.02", 0.02)])
def test_a_larger_share_for_another_label_is_not_this_canarys(file: Path, share: str, taken: float | None) -> None:
    """The next start has both; a smaller one is taken from this one at once."""
    looks = watch(file)
    file.write_text(f"model: {{label: stable, canary: {{label: other, share: {share}}}}}")
    with structlog.testing.capture_logs() as lines:
        found = settled(looks)
    assert (found and found.share) == taken
    assert [line["keys"] for line in lines if "keys" in line] == [["model.canary.label", "model.canary.share"]]


def test_what_takes_effect_at_the_next_start_is_named_once(file: Path) -> None:
    """By its keys, not its values."""
    looks = watch(file)
    with structlog.testing.capture_logs() as lines:
        for share in ("0.1", "0.3"):
            file.write_text(f"model: {BEFORE.replace('0.1', share)}\nlimits: {{text_chars: 99}}")
            found = settled(looks)
            assert (found is None) == (share == "0.1")
    assert [line["keys"] for line in lines if "keys" in line] == [["limits.text_chars"]]


@pytest.mark.parametrize("content", ["model: {label: stable, canary: {share: 9}}", "model: [", None])
def test_a_file_that_cannot_be_used_changes_nothing(file: Path, content: str | None) -> None:
    """An error line with its name, once; the next good content counts."""
    looks = watch(file)
    file.unlink()
    if content is not None:
        file.write_text(content)
    with structlog.testing.capture_logs() as lines:
        assert settled(looks) is None
        assert looks.changed() is None
    assert [(line["log_level"], line["file"]) for line in lines] == [("error", str(file))]
    file.write_text(f"model: {BEFORE.replace('0.1', '0.4')}")
    found = settled(looks)
    assert found is not None
    assert found.share == 0.4


def test_a_good_file_that_could_not_be_loaded_is_tried_again(file: Path, tmp_path: Path) -> None:
    """What it names came a moment later: its share must not wait for the next edit. The reason is logged once."""
    named = tmp_path / "ca.pem"

    def reload() -> Config:
        if "0.2" in file.read_text() and not named.exists():
            raise OSError(f"{named} is not there")
        return load_config(str(file), {})

    looks = ConfigWatch(reload(), reload, str(file))
    file.write_text(f"model: {BEFORE.replace('0.1', '0.2')}")
    with structlog.testing.capture_logs() as lines:
        assert settled(looks) is None
        assert settled(looks) is None
    assert [line["log_level"] for line in lines] == ["error"]
    named.touch()
    found = looks.changed()
    assert found is not None
    assert found.share == 0.2
    assert settled(looks) is None
    file.write_text("model: [")
    with structlog.testing.capture_logs() as lines:
        assert settled(looks) is None
    assert [line["log_level"] for line in lines] == ["error"]
