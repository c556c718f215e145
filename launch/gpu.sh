#!/usr/bin/env bash
# A study on one GPU. Set up once with: bash launch/setup.sh cuda
#   bash launch/gpu.sh --config=configs/gpt2_ddo.py --workdir=workdir/gpt2_ddo [--config.FIELD=VALUE ...]
#   GPU=1 another card than the first     PYTHON=... another interpreter than .venv/bin/python
set -euo pipefail
cd "$(dirname "$0")/.."
export CUDA_VISIBLE_DEVICES="${GPU:-0}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}" # of the card's memory
exec "${PYTHON:-.venv/bin/python}" -m autoscale_jax.launch "$@"
