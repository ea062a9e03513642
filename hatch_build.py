"""Metadata that depends on where the project is published.

PyPI shows the README without the files next to it. With SELFHVD_TTA_URL, the address of the repository on GitHub, its
links and its picture become absolute and the project's addresses are added; without it both are left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

CAPTIONED = re.compile(r"!\[[^\]]*\]\([^)]*\)\n\n\*[^*]*\*\n\n")
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def long_description(readme: str, url: str) -> str:
    """The README with absolute links to the repository at ``url``; with an empty ``url`` without links and pictures."""
    if not url:
        readme = CAPTIONED.sub("", readme)

    def replace(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if not url:
            return "" if picture else text
        return f"{picture}[{text}]({url}/{'raw' if picture else 'blob'}/main/{target})"

    return RELATIVE.sub(replace, readme)


class PublishedMetadata(MetadataHookInterface):
    """Fills ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        url = os.environ.get("SELFHVD_TTA_URL", "").rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(readme, url)}
        metadata["urls"] = {"Repository": url, "Issues": f"{url}/issues"} if url else {}
