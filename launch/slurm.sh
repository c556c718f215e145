#!/usr/bin/env bash
# A study on several GPU machines under SLURM, a process a GPU. Once, in a folder that all machines
# share: bash launch/setup.sh cuda; then, from there,
#   sbatch launch/slurm.sh --config=configs/gpt2_ddo.py --workdir=SHARED/gpt2_ddo [--config.FIELD=VALUE ...]
#   sbatch --nodes=4 launch/slurm.sh ...     any of the options below, on the command line
# A job that is requeued, or the same command again, continues the study.
#SBATCH --job-name=autoscale_jax
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}" # of each card's memory
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m autoscale_jax.launch --coordinator=auto "$@"
