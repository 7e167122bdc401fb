"""Write consumer/serving/descriptors.binpb: TensorFlow Serving's messages, taken from the official package.

Run it with the tensorflow-serving-api package and TensorFlow installed, when a newer release of either brings a field
that Rexstream needs:

    pip install --no-deps tensorflow-serving-api==2.21.0
    python deploy/tf-serving/extract_descriptors.py

``--no-deps`` because the package asks for the distribution named ``tensorflow`` and would install it beside
``tensorflow-cpu``. tests/unit/serving/test_descriptors.py compares the file with what is installed.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

TARGET = Path(__file__).parents[2] / "consumer" / "serving" / "descriptors.binpb"


def extract() -> bytes:
    """Serialized FileDescriptorSet of the two services and PredictionLog, every file after those it imports."""
    from tensorflow_serving.apis import model_service_pb2, prediction_log_pb2, prediction_service_pb2

    found: dict[str, bytes] = {}

    def add(file: Any) -> None:
        for dependency in file.dependencies:
            add(dependency)
        found.setdefault(file.name, file.serialized_pb)

    for module in (prediction_service_pb2, model_service_pb2, prediction_log_pb2):
        add(module.DESCRIPTOR)
    files = FileDescriptorSet()
    for serialized in found.values():
        files.file.add().MergeFromString(serialized)
    return files.SerializeToString(deterministic=True)


if __name__ == "__main__":
    content = extract()
    TARGET.write_bytes(content)
    release = version("tensorflow-serving-api")
    sys.stdout.write(f"{TARGET.name}: {len(content)} bytes from tensorflow-serving-api {release}\n")
