"""config.json is read completely or refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from consumer.model.encoder_config import CheckpointError, read_config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model


def write(folder: Path, micro: Any, **changes: Any) -> Path:
    fields = {**micro.base, **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))
    return folder


def test_every_switch_is_read(tmp_path: Path, micro: Any) -> None:
    """Values of the file arrive in the configuration, and what follows from them."""
    config = read_config(write(tmp_path, micro, position_buckets=16, max_relative_positions=64, conv_kernel_size=3))
    assert (config.hidden_size, config.heads, config.head_size, config.layers) == (24, 3, 8, 2)
    assert (config.span, config.log_buckets, config.score_terms) == (16, True, 3)
    assert (config.conv_kernel_size, config.conv_act, config.conv_groups) == (3, "tanh", 1)


@pytest.mark.parametrize(
    ("buckets", "reach", "span", "logarithmic"),
    [(8, -1, 8, False), (8, 24, 8, True), (-1, 24, 24, False), (-1, -1, 80, False), (0, 0, 80, False)],
)
def test_the_raw_reach_decides_log_buckets(
    tmp_path: Path, micro: Any, buckets: int, reach: int, span: int, logarithmic: bool
) -> None:
    """Only a positive max_relative_positions beside positive position_buckets gives logarithmic buckets (Q15)."""
    config = read_config(write(tmp_path, micro, position_buckets=buckets, max_relative_positions=reach))
    assert (config.span, config.log_buckets) == (span, logarithmic)


@pytest.mark.parametrize(
    ("value", "terms"),
    [("p2c|c2p", (True, True)), (["c2p"], (True, False)), ("p2c", (False, True)), ([], (False, False))],
)
def test_both_spellings_of_attention_terms(tmp_path: Path, micro: Any, value: object, terms: tuple[bool, bool]) -> None:
    """pos_att_type may be a list or joined by bars."""
    config = read_config(write(tmp_path, micro, pos_att_type=value))
    assert (config.content_to_position, config.position_to_content) == terms


@pytest.mark.parametrize(
    ("field", "value", "supported"),
    [
        ("model_type", "bert", '"deberta-v2"'),
        ("hidden_act", "silu", '"gelu"'),
        ("conv_act", "mish", '"tanh"'),
        ("relative_attention", False, "true"),
        ("pos_att_type", ["p2p"], "c2p, p2c"),
        ("norm_rel_ebd", "batch_norm", "layer_norm"),
        ("share_att_key", "yes", "true, false"),
        ("hidden_size", 25, "even"),
        ("num_attention_heads", 5, "divisor of hidden_size 24"),
        ("attention_head_size", 16, "= 8"),
        ("num_hidden_layers", 0, "at least 1"),
        ("vocab_size", "40", "an integer"),
        ("type_vocab_size", 1, "at least 2"),
        ("layer_norm_eps", 0, "above 0"),
        ("conv_kernel_size", 4, "odd"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, micro: Any, field: str, value: object, supported: str
) -> None:
    """The error names the field, its value and what would do."""
    with pytest.raises(CheckpointError) as error:
        read_config(write(tmp_path, micro, **{field: value}))
    assert f"{field} is {value!r}" in str(error.value)
    assert supported in str(error.value)


def test_convolution_groups_must_divide(tmp_path: Path, micro: Any) -> None:
    """Groups that do not divide the features are refused, but only where there is a convolution."""
    assert read_config(write(tmp_path, micro, conv_groups=7)).conv_groups == 7
    with pytest.raises(CheckpointError, match="conv_groups is 7"):
        read_config(write(tmp_path, micro, conv_groups=7, conv_kernel_size=3))


def test_a_missing_field_is_named(tmp_path: Path, micro: Any) -> None:
    """A size without which nothing can be built has no default."""
    with pytest.raises(CheckpointError, match="intermediate_size is missing"):
        read_config(write(tmp_path, micro, intermediate_size=...))


@pytest.mark.parametrize(("content", "message"), [("[]", "expected an object"), ("{", "is not JSON")])
def test_a_file_that_is_no_object(tmp_path: Path, content: str, message: str) -> None:
    """A damaged file says what is wrong with it."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    """A folder without config.json says what a checkpoint is."""
    with pytest.raises(CheckpointError, match="a checkpoint is a folder with"):
        read_config(tmp_path)
