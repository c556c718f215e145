"""Plain text: a document a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoscale_jax.data.sources import files
from autoscale_jax.data.sources.unit import SKIP, Unit
from autoscale_jax.specs import BadInput


class TextFiles:
    """The files of a unit."""

    def __init__(self, unit: Unit) -> None:
        self._paths = [path for path, _, _ in unit.files]

    def __len__(self) -> int:
        return len(self._paths)

    def place(self, index: int) -> str:
        return self._paths[index]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        path = self._paths[index]
        try:
            return {"text": b"".join(files.chunks(path)).decode("utf-8-sig")}
        except UnicodeDecodeError as e:
            raise BadInput(f"{path}: not UTF-8 at byte {e.start}; {SKIP}") from e
        except files.DAMAGE as e:
            raise BadInput(f"{path}: compression cut short or damaged ({e}); {SKIP}") from e
        except OSError as e:
            raise BadInput(f"{path}: cannot be read ({e.strerror or e}); {SKIP}") from e
