#!/usr/bin/env bash
# From nothing to a verified mixture: sets up .venv, then runs the main job on the embedded corpus.
#   bash launch/quickstart.sh [WORKDIR] [--config.FIELD=VALUE ...]
set -euo pipefail
cd "$(dirname "$0")/.."
workdir="workdir/quickstart"
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  workdir="$1"
  shift
fi
bash launch/setup.sh
exec .venv/bin/python -m autoscale_jax.launch --config=configs/quickstart.py --workdir="$workdir" "$@"
