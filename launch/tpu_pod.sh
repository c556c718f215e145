#!/usr/bin/env bash
# A study on a Cloud TPU pod slice: copies this folder to all of its workers, sets them up, and starts
# the same command on each. The workdir must be a folder that all workers share (Filestore, say).
#   TPU=my-pod ZONE=us-west4-a bash launch/tpu_pod.sh \
#     --config=configs/gpt2_ddo.py --workdir=/mnt/shared/gpt2_ddo --config.mesh.fsdp=16
#   PROJECT=... another project than gcloud's     DIR=autoscale_jax the folder on the workers
#   PYTHON=python3.11 the workers' interpreter, 3.11 or newer
# The same command again continues the study.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU:?set TPU to the name of the TPU}" "${ZONE:?set ZONE to its zone}"
dir="${DIR:-autoscale_jax}"
where=(--worker=all --zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
parcel="$(mktemp -d)"
trap 'rm -rf "$parcel"' EXIT
tar -czf "$parcel/autoscale_jax.tgz" autoscale_jax configs launch setup.py requirements.lock README.md

on_all() { gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --command="$1"; }

gcloud compute tpus tpu-vm scp "$parcel/autoscale_jax.tgz" "$TPU":autoscale_jax.tgz "${where[@]}"
on_all "mkdir -p $dir && tar -xzf autoscale_jax.tgz -C $dir && PYTHON=${PYTHON:-python3} bash $dir/launch/setup.sh tpu"
on_all "cd $dir && .venv/bin/python -m autoscale_jax.launch --coordinator=auto $(printf '%q ' "$@")"
