"""The seven domains of RedPajama and the paper's rules for them, as settings of `config.data`."""

from __future__ import annotations

from typing import Any

# Domain: (its folder, value of meta.redpajama_set_name, which window).
DOMAINS = {
    "arxiv": ("arxiv", "RedPajamaArXiv", "random"),
    "books": ("book", "RedPajamaBook", "first"),
    "c4": ("c4", "RedPajamaC4", "first"),
    "commoncrawl": ("common_crawl", "RedPajamaCommonCrawl", "first"),
    "github": ("github", "RedPajamaGithub", "random"),
    "stackexchange": ("stackexchange", "RedPajamaStackExchange", "first"),
    "wikipedia": ("wikipedia", "RedPajamaWikipedia", "first"),
}
PAPER_RULES = {"min_chars": 1000, "window_chars": 1000, "held_out": 10_000}


def by_file(folder: str) -> dict[str, Any]:
    """RedPajama-Data-1T as published: a folder a domain; of Wikipedia the English articles."""
    sources: dict[str, Any] = {
        name: {"path": f"{folder}/{stem}/**/*.jsonl*", "window": window}
        for name, (stem, _, window) in DOMAINS.items()
    }
    sources["wikipedia"]["where"] = {"meta.language": "en"}
    return sources


def by_meta(pattern: str) -> dict[str, Any]:
    """SlimPajama: all domains in the same files, told apart by `meta.redpajama_set_name`.

    Its Wikipedia is of 20 languages and cannot be told by language: it has no field for it.
    """
    return {
        name: {"path": pattern, "where": {"meta.redpajama_set_name": label}, "window": window}
        for name, (_, label, window) in DOMAINS.items()
    }
