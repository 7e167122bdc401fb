"""The service: wires Kafka, the model server and the pure core together, and carries one event through them."""
