"""RexUniNLU inference without the model: a text and a schema to prompt windows, logits to facts. Pure."""
