#!/bin/sh
# Create the topics that config.yaml names. Run by the `topics` container; running it again changes nothing.
set -eu
PATH="$PATH:/opt/kafka/bin"

create() { # name, partitions, key=value ...
  name=$1 partitions=$2
  shift 2
  for setting in "$@"; do
    set -- "$@" --config "$setting"
    shift
  done
  kafka-topics.sh --bootstrap-server "$BOOTSTRAP" --create --if-not-exists --topic "$name" \
    --partitions "$partitions" --replication-factor 1 "$@"
}

# Equal partition counts: a result and a dead letter go to the partition number of their review.
# 1048588 is a value of limits.value_bytes and the record's frame. What leaves is larger than what came in: a result
# repeats spans, a dead letter adds headers.
create reviews.raw 4 retention.ms=604800000 max.message.bytes=1048588
create reviews.extracted 4 retention.ms=604800000 max.message.bytes=2097152
# 30 days: as long as somebody may need to find the cause and replay.
create reviews.dead 4 retention.ms=2592000000 max.message.bytes=2097152
