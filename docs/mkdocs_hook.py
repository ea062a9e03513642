"""MkDocs hook: takes the model cards of weights/ into the site, and turns links to them.

``pip install '.[docs]'`` and ``mkdocs serve`` show the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

CARDS = Path(__file__).parent.parent / "weights"


def on_files(files: Files, config: Any) -> Files:
    for card in sorted(CARDS.glob("*.md")):
        files.append(File.generated(config, f"cards/{card.name}", abs_src_path=str(card)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri.startswith("cards/"):
        return markdown.replace("](../docs/", "](../")
    return re.sub(r"\]\(\.\./\.\./weights/", "](../cards/", markdown)
