"""The default corpus: text that ships with Python and with the packages this project installs.

Nothing is downloaded. What comes out is fixed by the installation: the versions of Python and of
the packages read here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import pydoc_data.topics
import re
import sysconfig
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from autoscale_jax.specs import BadInput

# Enough for each domain to outlast a small study, and little enough to prepare within seconds.
_DOMAIN_CHARS = 5_000_000
# A few very long files must not be the domain, nor its held-out part.
_FILE_CHARS = 16_000
_PACKAGES = ("flax", "jax", "jaxlib", "matplotlib", "numpy", "optax", "pyarrow", "scipy")


def embedded_documents(domains: Sequence[str]) -> dict[str, list[str]]:
    """Documents by domain, in a fixed order; `BUILDERS` names the domains there are."""
    out = {}
    for name in domains:
        out[name] = list(_first(BUILDERS[name](), _DOMAIN_CHARS))
        if not out[name]:
            raise BadInput(f"embedded domain {name!r}: this installation holds no text of it")
    return out


def identity() -> dict[str, str]:
    """What the documents are a function of: versions, and the code of this file."""
    versions = {"python": platform.python_version(), "unicode": unicodedata.unidata_version}
    versions["code"] = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return versions | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _first(documents: Iterable[str], limit: int) -> Iterator[str]:
    for document in documents:
        if limit <= 0:
            return
        if document.strip():
            limit -= len(document)
            yield document


_PRUNED = {"site-packages", "dist-packages", "__pycache__"}


@functools.cache
def _files(package: str) -> list[tuple[str, str]]:
    """(path inside the package, path) of all files of an installed package; "" is Python itself.

    The package is found, not imported.
    """
    if package:
        spec = importlib.util.find_spec(package)
        roots = list(spec.submodule_search_locations or ()) if spec else []
    else:
        roots = [sysconfig.get_path("stdlib")]
    found = []
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [s for s in subfolders if s not in _PRUNED]
            for name in names:
                path = os.path.join(folder, name)
                found.append((Path(path).relative_to(root).as_posix(), path))
    return found


def _texts(packages: Sequence[str], pattern: str) -> Iterator[str]:
    """Texts of the files whose path inside their package matches, in an order that mixes them.

    The order comes from hashes of these inner paths: where the packages are installed is no matter.
    """
    matches = re.compile(pattern).search
    found = []
    for package in packages:
        for inside, path in _files(package):
            if matches(f"/{inside}"):
                key = hashlib.blake2b(f"{package}/{inside}".encode()).digest()
                found.append((key, path))
    for _, path in sorted(found):
        yield Path(path).read_text("utf-8", errors="replace")


_SOURCE = ("jax", "numpy", "scipy", "matplotlib", "flax", "optax", "")
_NO_TESTS = r"^(?!.*/(tests?|idlelib|_?vendor|.*_ops_gen|encodings|lib2to3)/).*(?<!_test)\.py$"
_DOCSTRING = re.compile(r'^[ \t]*[rR]?"""(.*?)"""|^[ \t]*[rR]?\'\'\'(.*?)\'\'\'', re.M | re.S)
_COMMENT_LINE = re.compile(r"^[ \t]*#.*\n", re.M)
_BLANK_LINES = re.compile(r"\n\s*\n+")
_C_LICENCE = re.compile(r"\A\s*(?:/\*.*?\*/\s*|(?://[^\n]*\n\s*)+)", re.S)


def _code() -> Iterator[str]:
    """Python without docstrings and comment lines."""
    for text in _texts(_SOURCE, _NO_TESTS):
        text = _COMMENT_LINE.sub("", _DOCSTRING.sub("", text))
        yield _BLANK_LINES.sub("\n\n", text)[:_FILE_CHARS]


def _docs() -> Iterator[str]:
    """Docstrings of scientific packages and the language reference."""
    yield from pydoc_data.topics.topics.values()
    for text in _texts(("scipy", "numpy", "matplotlib", "jax", "optax", "flax"), _NO_TESTS):
        for double, single in _DOCSTRING.findall(text):
            if len(double) + len(single) > 200:
                yield _dedent(double or single)


def _dedent(docstring: str) -> str:
    """Takes off the indentation of the second line, as good as textwrap and much faster."""
    lines = re.search(r"\n([ \t]+)\S", docstring)
    return docstring.replace("\n" + lines[1], "\n") if lines else docstring


def _headers() -> Iterator[str]:
    """C and C++ headers, without the licence on top."""
    for text in _texts(("pyarrow", "numpy", "scipy", "jaxlib"), r"\.(h|hpp)$"):
        yield _C_LICENCE.sub("", text)[: 3 * _FILE_CHARS]


def _unicode() -> Iterator[str]:
    """The Unicode character table, 64 code points a document."""
    algorithmic = ("CJK ", "HANGUL SYLLABLE", "TANGUT IDEO", "TANGUT COMP", "NUSHU", "KHITAN")
    for start in range(0, 0x110000, 64):
        lines = []
        for code in range(start, start + 64):
            name = unicodedata.name(chr(code), "")
            if name and not name.startswith(algorithmic):
                c = chr(code)
                lines.append(
                    f"{code:04X};{name};{unicodedata.category(c)};{unicodedata.combining(c)};"
                    f"{unicodedata.bidirectional(c)};{unicodedata.decomposition(c)};"
                    f"{unicodedata.east_asian_width(c)}"
                )
        yield "\n".join(lines)


def _numbers() -> Iterator[str]:
    """Tables of numbers that tests check against."""
    for text in _texts(("scipy", "numpy", "matplotlib"), r"\.(dat|csv|arff)$|/data/.*\.txt$"):
        for start in range(0, min(len(text), 4 * _FILE_CHARS), 4000):
            yield text[start : start + 4000]


BUILDERS: dict[str, Callable[[], Iterator[str]]] = {
    "code": _code,
    "docs": _docs,
    "headers": _headers,
    "numbers": _numbers,
    "unicode": _unicode,
}
DEFAULT = tuple(BUILDERS)
