"""The folder of one study: whose config it holds, and that it can be written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from autoscale_jax.specs import BadInput

# What may change between two starts of a study: where it runs, and what it verifies at its end.
FREE = (
    "verify.",
    "execute.",
    "mesh.",
    "train.accumulation",
    "train.checkpoint_seconds",
    "model.remat",
    "model.attention",
)


def local(name: str, folder: str | Path) -> Path:
    """A folder to write into, "~" replaced. Raises `BadInput` that names it for a remote one."""
    if "://" in str(folder):
        raise BadInput(
            f"{name} = {str(folder)!r}: must be a folder of this machine; mount the bucket, or give"
            " a local folder and copy it afterwards"
        )
    return Path(folder).expanduser()


def claim(workdir: Path, config: ConfigDict) -> None:
    """Make `workdir` this study's: create it, check that it is writable, record the config.

    A folder that another config wrote is refused with the difference; fields that change nothing
    of what is already there (`FREE`) are not part of it. Raises `BadInput`.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise BadInput(
            f"--workdir = {workdir}: cannot be written ({error.strerror}); give another folder"
        ) from error
    settings = _fixed(flat(config.to_dict()))
    record = workdir / "config.json"
    if record.exists():
        _refuse_other(record, settings)
        return
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, record)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"study": {"floor": 1}} -> {"study.floor": 1}, with values as JSON holds them."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and prefix + name not in ("data.domains", "study.eval_weights"):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = json.loads(json.dumps(value))
    return result


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not name.startswith(FREE)}


def _refuse_other(record: Path, settings: dict[str, Any]) -> None:
    try:
        before = _fixed(json.loads(record.read_text()))
    except ValueError as error:
        raise BadInput(
            f"{record}: not JSON ({error}); restore it or give another --workdir"
        ) from error
    changed = [
        f"config.{name} was {before.get(name)!r} and is {settings.get(name)!r}"
        for name in sorted(before.keys() | settings.keys())
        if before.get(name) != settings.get(name)
    ]
    if changed:
        raise BadInput(
            f"--workdir = {record.parent}: holds a study of another config ({'; '.join(changed)}); "
            "give another --workdir, or set these back"
        )
