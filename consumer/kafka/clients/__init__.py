"""What every Kafka client here needs: settings, errors, the cluster behind it, and a watchdog."""
