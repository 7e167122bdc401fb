"""TensorFlow Serving over gRPC: messages, tensors, the client, and (``dispatch``) what goes into which call."""
