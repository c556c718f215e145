#!/usr/bin/env bash
# Makes .venv and installs the package into it, training included, as requirements.lock has it.
#   bash launch/setup.sh [EXTRA]     PYTHON=python3.12 bash launch/setup.sh   another interpreter
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $python is older than Python 3.11: set PYTHON to a newer one" >&2
  exit 2
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet uv==0.13.9
extras="train${1:+,$1}"
.venv/bin/uv pip install --quiet --python .venv/bin/python --constraints requirements.lock -e ".[$extras]"
