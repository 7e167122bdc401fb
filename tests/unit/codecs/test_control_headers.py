"""What a replay says in headers, and what a route that believes none of it is left with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.codecs.control_headers import CONTROL_HEADERS, REPLAY_GROUP, is_for_another_group, without_control

if TYPE_CHECKING:
    from consumer.events import Header


def test_a_replay_for_another_group_is_told_from_all_else() -> None:
    """Without the header, or with an empty one, a record is for everybody."""
    assert is_for_another_group(((REPLAY_GROUP, b"a"),), "b")
    assert not is_for_another_group(((REPLAY_GROUP, b"b"),), "b")
    assert is_for_another_group(((REPLAY_GROUP, b"\xff"),), "b")
    for headers in ((), ((REPLAY_GROUP, None),), ((REPLAY_GROUP, b""),), (("x", b"a"),)):
        assert not is_for_another_group(headers, "b")


def test_without_control_headers_the_others_stay_as_they_are() -> None:
    """In their order, and as often as they came."""
    own: tuple[Header, ...] = (("a", b"1"), ("a", None), ("rexstream-task", b"x"))
    assert without_control((*((name, b"x") for name in CONTROL_HEADERS), *own)) == own
