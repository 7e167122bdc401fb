"""TensorFlow Serving's messages and methods, without TensorFlow and without generated code.

``descriptors.binpb`` is a FileDescriptorSet taken from the official tensorflow-serving-api package by
``deploy/tf-serving/extract_descriptors.py``. Importing that package imports all of TensorFlow (5 s, 500 MB); this file
costs 30 ms. The messages live in a pool of their own, so they get on with a real TensorFlow in the same process, and
need no particular protobuf release.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

MADE_FROM = "2.21.0"
"""The release of tensorflow-serving-api in ``descriptors.binpb``."""


_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(files("consumer.serving").joinpath("descriptors.binpb").read_bytes()).file:
    _pool.AddSerializedFile(_file.SerializeToString())


def message_class(full_name: str) -> Any:
    """The class of a message such as ``tensorflow.serving.PredictRequest``. Raises KeyError for an unknown name."""
    return GetMessageClass(_pool.FindMessageTypeByName(full_name))


class Method(NamedTuple):
    """One remote procedure: its path on the wire and its two message classes."""

    path: str
    request: Any
    response: Any


def method(service: str, name: str) -> Method:
    """A method of one of TensorFlow Serving's services, by its full name."""
    found = _pool.FindServiceByName(service).methods_by_name[name]
    return Method(f"/{service}/{name}", GetMessageClass(found.input_type), GetMessageClass(found.output_type))


PREDICT = method("tensorflow.serving.PredictionService", "Predict")
GET_MODEL_METADATA = method("tensorflow.serving.PredictionService", "GetModelMetadata")
GET_MODEL_STATUS = method("tensorflow.serving.ModelService", "GetModelStatus")
HANDLE_RELOAD_CONFIG = method("tensorflow.serving.ModelService", "HandleReloadConfigRequest")

TensorProto: Any = message_class("tensorflow.TensorProto")
SignatureDef: Any = message_class("tensorflow.SignatureDef")
SignatureDefMap: Any = message_class("tensorflow.serving.SignatureDefMap")
ModelVersionStatus: Any = message_class("tensorflow.serving.ModelVersionStatus")
PredictionLog: Any = message_class("tensorflow.serving.PredictionLog")
