#!/usr/bin/env bash
# A checkpoint of your own: export it, serve it, ask it. Here the demo model's checkpoint stands for yours.
#
#   examples/own_model.sh [CHECKPOINT] [FOLDER]
#
# CHECKPOINT holds config.json, the tokenizer's files, and model.safetensors or pytorch_model.bin. The exported version
# in FOLDER is what TensorFlow Serving loads; `rexstream serve` speaks its protocol on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
rexstream=${REXSTREAM:-.venv/bin/rexstream}
checkpoint=${1:-deploy/demo-model}
folder=${2:-$(mktemp -d)}

# 1. Checkpoint to SavedModel, with the bundle (tokenizer, limits) that workers need. The result is compared with a
#    second implementation before it is kept.
"$rexstream" export --checkpoint "$checkpoint" --output "$folder/reviews" --version 1

# 2. Serve it, as TensorFlow Serving would from the same folder.
"$rexstream" serve --models "$folder" --port 0 --json > "$folder/ready.json" &
server=$!
trap 'kill "$server"' EXIT
until [ -s "$folder/ready.json" ]; do kill -0 "$server"; sleep 0.2; done
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$folder/ready.json")

# 3. Ask it. A worker has the same two settings: model.target and model.bundle.
echo '{"text": "屏幕很清晰，就是充电太慢了。"}' |
  "$rexstream" extract --server "$address" --model reviews --bundle "$folder/reviews/1/bundle" --task product_features
