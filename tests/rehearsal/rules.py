"""The shipped alerts on a clock that a rehearsal has time for: a minute is a second."""

from __future__ import annotations

import re
from typing import Any

import yaml

FAST = "fast"
"""Value of the label ``clock`` of these alerts; those with the shipped times have no such label."""

_DURATION = re.compile(r"(?<=\[)\d+[mh](?=\])|(?<=offset )\d+[mh]")
_HALF_AN_HOUR = re.compile(r"\b1800\b")


def hurried(text: str) -> str:
    """The rules with seconds for minutes, in ranges, offsets and ``for``, each alert with the label ``clock: fast``.

    What an expression compares with, such as 30 s of latency, stays, but for the half hour of work of a lag.
    """
    rules: Any = yaml.safe_load(text)
    for group in rules["groups"]:
        group["name"] += f"-{FAST}"
        for rule in group["rules"]:
            rule["expr"] = _HALF_AN_HOUR.sub("30", _DURATION.sub(lambda found: _seconds(found[0]), rule["expr"]))
            if "for" in rule:
                rule["for"] = _seconds(rule["for"])
            rule["labels"]["clock"] = FAST
    return yaml.safe_dump(rules, allow_unicode=True)


def _seconds(duration: str) -> str:
    number, unit = int(duration[:-1]), duration[-1]
    return f"{number * {'m': 1, 'h': 60}[unit]}s"
