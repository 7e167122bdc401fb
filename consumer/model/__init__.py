"""Export of a checkpoint to what TensorFlow Serving loads. Needs the ``[model]`` extra."""
