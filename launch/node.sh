#!/usr/bin/env bash
# A study on all GPUs of one machine: one process drives them. Set up once with: bash launch/setup.sh cuda
#   bash launch/node.sh --config=configs/gpt2_ddo.py --workdir=workdir/gpt2_ddo [--config.FIELD=VALUE ...]
# The GPUs split each batch; --config.mesh.fsdp=8 splits the parameters as well, and
# --config.execute.slots=8 trains eight runs at once, a GPU each.
#   GPUS=0,1,2,3 only these     PYTHON=... another interpreter than .venv/bin/python
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "${GPUS:-}" ] || export CUDA_VISIBLE_DEVICES="$GPUS"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}" # of each card's memory
exec "${PYTHON:-.venv/bin/python}" -m autoscale_jax.launch "$@"
