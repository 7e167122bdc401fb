#!/bin/sh
# Create the topics of a list, and with PRINCIPAL the rights of a worker on them. Running it again changes nothing: a topic
# that exists keeps its settings. Each line of the list is a role (input, output or dead) and a topic's name.
#
#   BOOTSTRAP=kafka:9092 PARTITIONS=4 REPLICATION_FACTOR=1 MIN_INSYNC_REPLICAS=1 sh topics.sh topics.txt
#
# COMMAND_CONFIG: a file of properties with which Kafka's tools log in. GROUP: the workers' consumer group.
set -eu
PATH="$PATH:/opt/kafka/bin"

kafka() { # tool, arguments
  tool=$1
  shift
  "$tool" --bootstrap-server "$BOOTSTRAP" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} "$@"
}

allow() { # operation, resource as kafka-acls.sh names it
  operation=$1
  shift
  kafka kafka-acls.sh --add --allow-principal "$PRINCIPAL" --operation "$operation" "$@" < /dev/null
}

while read -r role topic || [ -n "$role" ]; do
  # What leaves is larger than what came in: a result repeats spans, a dead letter adds headers. An input has a value of
  # limits.value_bytes and the record's frame. Dead letters stay 30 days: until somebody has found the cause.
  case $role in
    input) bytes=1048588 days=7 right=Read ;;
    output) bytes=2097152 days=7 right=Write ;;
    dead) bytes=2097152 days=30 right=Write ;;
    *) echo "topics.sh: $role is no role; input, output or dead" >&2; exit 2 ;;
  esac
  kafka kafka-topics.sh --create --if-not-exists --topic "$topic" \
    --partitions "$PARTITIONS" --replication-factor "$REPLICATION_FACTOR" \
    --config "retention.ms=$((days * 86400000))" --config "max.message.bytes=$bytes" \
    --config "min.insync.replicas=$MIN_INSYNC_REPLICAS" < /dev/null
  # Who may read or write may describe, too.
  if [ -n "${PRINCIPAL:-}" ]; then allow "$right" --topic "$topic"; fi
done < "$1"

if [ -n "${PRINCIPAL:-}" ]; then
  allow Read --group "$GROUP"
  # exactly_once
  allow Write --transactional-id "$GROUP-" --resource-pattern-type prefixed
fi
