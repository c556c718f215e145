"""Packages that tests may do without: those that need one are skipped where it is not installed.

With AUTOSCALE_FULL=1 in the environment they run and fail, so that a full check leaves nothing out
unseen.
"""

import importlib
import importlib.util
import os

import pytest

FULL = os.environ.get("AUTOSCALE_FULL") == "1"


def need(module, extra):
    """The module; without it the test, or the file, is skipped."""
    if FULL:
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"the extra {extra!r} is not installed")


def needs(module, extra):
    """Mark of tests that reach the module from somewhere else."""
    missing = not FULL and importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"the extra {extra!r} is not installed")
