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

DEFAULT = ("code", "docs", "headers", "unicode", "numbers")

# Enough for each domain to outlast a small study, and little enough to prepare within seconds.
_DOMAIN_CHARS = 5_000_000
# A few very long files must not be the domain, nor its held-out part.
_FILE_CHARS = 16_000
_REQUIRED = ("absl-py", "flax", "grain", "jax", "jaxopt", "matplotlib", "ml-collections", "numpy",
             "optax", "orbax-checkpoint", "rich", "scipy", "tensorboardX", "tensorflow-datasets",
             "tokenizers", "zstandard")  # fmt: skip


def embedded_documents(domains: Sequence[str] = DEFAULT) -> dict[str, list[str]]:
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
    return versions | {d.name: d.version for d in _installed()}


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
_COMMENT_RUN = re.compile(r"(?:^[ \t]*#.*\n){2,}", re.M)
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


def _names() -> Iterator[str]:
    """Names of characters only, a sentence a line."""
    for start in range(0, 0x110000, 64):
        names = (unicodedata.name(chr(c), "") for c in range(start, start + 64))
        yield "\n".join(n for n in names if n and not n.startswith(("CJK ", "HANGUL S", "TANGUT ")))


def _metadata() -> Iterator[str]:
    """Package descriptions and licences, each paragraph once."""
    seen: set[str] = set()
    for distribution in _installed():
        for file in sorted(distribution.files or ()):
            if not re.search(r"dist-info/.*(METADATA|LICEN|COPYING|NOTICE|AUTHORS)", str(file)):
                continue
            new = []
            text = Path(str(file.locate())).read_text("utf-8", errors="replace")
            for paragraph in text.split("\n\n"):
                key = " ".join(paragraph.split())
                if key not in seen:
                    seen.add(key)
                    new.append(paragraph)
            yield from _parts("\n\n".join(new))


def _codecs() -> Iterator[str]:
    """Character tables of the standard library's codecs."""
    for text in _texts(("encodings",), r"\.py$"):
        yield from _parts(text, 8000, most=1_000_000)


def _pem() -> Iterator[str]:
    """Root certificates in base64."""
    for text in _texts(("certifi",), r"\.pem$"):
        yield from re.findall(r"-----BEGIN CERTIFICATE-----\n(.*?)-----END", text, re.S)


def _tests() -> Iterator[str]:
    """Unit tests of numpy and scipy."""
    for text in _texts(("numpy", "scipy"), r"/tests/.*\.py$"):
        yield from _parts(text, 16000)


def _comments() -> Iterator[str]:
    """Comments of two lines and more, a file's together."""
    for text in _texts((*_SOURCE, "tensorflow_datasets", "pygments"), r"\.py$"):
        runs = [r for r in _COMMENT_RUN.findall(text) if not re.search("Copyright|License", r)]
        yield re.sub(r"^[ \t]*#+ ?", "", "\n".join(runs), flags=re.M)[:_FILE_CHARS]


def _stubs() -> Iterator[str]:
    """Type stubs."""
    packages = ("numpy", "matplotlib", "tensorstore", "jaxlib", "scipy", "google", "pyarrow")
    for text in _texts(packages, r"\.pyi$"):
        yield from _parts(text, 16000)


def _numbers() -> Iterator[str]:
    """Tables of numbers that tests check against."""
    for text in _texts(("scipy", "numpy", "matplotlib"), r"\.(dat|csv|arff)$|/data/.*\.txt$"):
        yield from _parts(text, 4000)


def _checksums() -> Iterator[str]:
    """Addresses, sizes and hashes of public data sets."""
    for text in _texts(("tensorflow_datasets",), r"url_checksums/.*\.txt$|checksums\.tsv$"):
        yield from _parts(text, 4000)


def _labels() -> Iterator[str]:
    """Class labels and file lists of public data sets."""
    for text in _texts(("tensorflow_datasets",), r"^(?!.*url_checksums).*\.txt$"):
        yield from _parts(text, 4000)


def _datasets() -> Iterator[str]:
    """Descriptions of public data sets and their BibTeX entries."""
    yield from _texts(("tensorflow_datasets",), r"\.(md|bib)$")


def _tfds_code() -> Iterator[str]:
    """Dataset definitions."""
    for text in _texts(("tensorflow_datasets",), r"\.py$"):
        yield text[:_FILE_CHARS]


def _fonts() -> Iterator[str]:
    """Font metrics."""
    for text in _texts(("matplotlib",), r"\.afm$"):
        yield from _parts(text, 4000, most=1_000_000)


def _cython() -> Iterator[str]:
    """Cython sources."""
    for text in _texts(("scipy", "pyarrow", "numpy"), r"\.(pyx|pxd|pxi)$"):
        yield from _parts(text, 16000)


def _mlir() -> Iterator[str]:
    """Generated bindings of compiler dialects."""
    for text in _texts(("jaxlib",), r"_ops_gen\.py$"):
        yield from _parts(text, 4000, most=1_000_000)


def _protos() -> Iterator[str]:
    """Protocol buffer definitions."""
    for text in _texts(("google", "tensorboardX", "orbax"), r"\.proto$"):
        yield _C_LICENCE.sub("", text)


def _lexers() -> Iterator[str]:
    """Word lists and grammars of syntax highlighters."""
    for text in _texts(("pygments",), r"/lexers/.*\.py$"):
        yield from _parts(text, 4000)


def _glyphs() -> Iterator[str]:
    """Tables of fontTools."""
    for text in _texts(("fontTools",), r"/(unicodedata|encodings|agl|cu2qu|ttLib/tables).*\.py$"):
        yield from _parts(text, 4000, most=128_000)


def _cpp() -> Iterator[str]:
    """C++ sources of pyarrow and C generated by Cython."""
    for text in _texts(("fontTools", "pyarrow", "wrapt"), r"\.(c|cc)$"):
        yield from _parts(text, 8000, most=1_024_000)


def _parts(text: str, size: int = 8000, most: int = 64_000) -> Iterator[str]:
    """The first `most` characters, `size` to a document."""
    for i in range(0, min(len(text), most), size):
        yield text[i : min(i + size, most)]


def _installed() -> list[importlib.metadata.Distribution]:
    """What this project needs, directly or not: test tools beside it must not change the corpus."""
    todo = list(_REQUIRED)
    found: dict[str, importlib.metadata.Distribution] = {}
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another platform or Python only
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                todo.append(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
    return [found[name] for name in sorted(found)]


BUILDERS: dict[str, Callable[[], Iterator[str]]] = {
    "checksums": _checksums,
    "code": _code,
    "codecs": _codecs,
    "comments": _comments,
    "cpp": _cpp,
    "cython": _cython,
    "datasets": _datasets,
    "docs": _docs,
    "fonts": _fonts,
    "glyphs": _glyphs,
    "headers": _headers,
    "labels": _labels,
    "lexers": _lexers,
    "metadata": _metadata,
    "mlir": _mlir,
    "names": _names,
    "numbers": _numbers,
    "pem": _pem,
    "protos": _protos,
    "stubs": _stubs,
    "tests": _tests,
    "tfds_code": _tfds_code,
    "unicode": _unicode,
}
