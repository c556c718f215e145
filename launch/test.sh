#!/usr/bin/env bash
# What CI runs: sets up .venv with the test extra, then lint, types and tests.
#   bash launch/test.sh [PYTEST ARGUMENTS]      bash launch/test.sh -m slow   the long ones
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/shellcheck launch/*.sh
exec .venv/bin/pytest -n 2 --dist loadfile "$@"
