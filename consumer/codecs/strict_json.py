"""JSON as its standard has it, with every way to fail turned into bad input."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from consumer.events import BadInput


def parse_json(text: str) -> Any:
    """Parse one JSON value. Of a key given twice the last wins; NaN and Infinity are refused.

    Raises BadInput with stage ``decode``: InvalidJson with the position, or JsonTooDeep. The message never quotes.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg.split(':')[0]} at character {error.pos} of {len(text)}; send one JSON value"
        raise BadInput("decode", "InvalidJson", what) from None
    except RecursionError:
        what = f"JSON of {len(text)} characters nests too deep to be read; flatten it"
        raise BadInput("decode", "JsonTooDeep", what) from None
    except ValueError:
        # What is left: an integer with more digits than Python converts, and _refuse.
        what = "not JSON: it holds NaN, Infinity or an integer of thousands of digits; send null or a shorter number"
        raise BadInput("decode", "InvalidJson", what) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
