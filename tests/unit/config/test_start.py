"""``kafka.start``: earliest, latest or a time, from every source of the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.config.loading import load_config
from consumer.config.problems import ConfigError
from consumer.config.start import start_ms


@pytest.mark.parametrize(
    ("written", "kept", "since"),
    [
        ("earliest", "earliest", None),
        ("latest", "latest", None),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 0),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", 1_793_491_200_000),
        ("2026-11-01 08:00:00.250+08:00", "2026-11-01T08:00:00.250000+08:00", 1_793_491_200_250),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", 253_402_300_799_000),
    ],
)
def test_a_start_is_read_alike_from_every_source(write: Any, written: str, kept: str, since: int | None) -> None:
    """YAML makes a time of an unquoted one; quotes, variables and flags leave it as text."""
    file = load_config(write(f"kafka:\n  start: {written}\n"), {})
    assert file.kafka.start == kept
    quoted = load_config(write(f"kafka:\n  start: '{written}'\n"), {})
    variable = load_config(None, {"REXSTREAM_KAFKA__START": written})
    flag = load_config(None, {}, [f"kafka.start={written}"])
    assert {start_ms(config.kafka.start) for config in (file, quoted, variable, flag)} == {since}


def test_without_the_key_a_group_starts_at_the_earliest_record() -> None:
    """As before there was one."""
    assert load_config(None, {}).kafka.start == "earliest"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("2026-11-01T00:00:00", "has no zone, so it is another moment elsewhere; write 2026-11-01T00:00:00Z for UTC"),
        ("2026-11-01", "write 2026-11-01T00:00:00Z for UTC"),
        ("1969-12-31T23:59:59.999Z", "is before 1970; write earliest"),
        ("0001-01-01T00:00:00+14:00", "is before 1970; write earliest"),
        ("Latest", "did you mean latest?"),
        ("end", "did you mean latest?"),
        ("smallest", "did you mean earliest?"),
        ("yesterday", "write earliest, latest, or a time such as 2026-11-01T00:00:00Z"),
        ("1793491200000", "kafka.start"),
        ("2026-02-30T00:00:00Z", "mend it"),
        ("''", "must be text that is not empty"),
    ],
)
def test_what_is_no_start_is_refused_with_the_way_out(write: Any, written: str, words: str) -> None:
    """Times before 1970 are negative, and brokers read -1 as the end."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(f"kafka:\n  start: {written}\n"), {})
    assert words in str(caught.value)


def test_auto_offset_reset_stays_refused_and_names_the_key() -> None:
    """It would also skip what arrives before a new partition is noticed."""
    with pytest.raises(ConfigError, match=r"set kafka\.start"):
        load_config(None, {}, ["kafka.client.auto.offset.reset=latest"])
