"""How a handler of the local model server refuses a call."""

from __future__ import annotations

import grpc

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class Refusal(Exception):  # noqa: N818 - an answer that is not OK, worded as TensorFlow Serving words it
    """A gRPC status other than OK, with TensorFlow Serving's text for the case."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @classmethod
    def numbered(cls, number: int, message: str) -> Refusal:
        """From TensorFlow's error number, which is gRPC's. An unknown number becomes UNKNOWN."""
        return cls(_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN), message)
