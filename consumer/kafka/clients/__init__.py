"""What all Kafka clients of a worker and of the commands share: settings, errors, checks of the cluster, a watchdog."""
