"""What the site does to a document: its first page is the README, and what lies outside docs/ is named, not linked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./[^)]*|(?!docs/)[A-Za-z][\w./-]*)\)")
README_LINK = re.compile(r"\]\(docs/")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page, before it is rendered."""
    if page.file.src_uri.startswith("index."):
        name = "README.zh.md" if page.file.src_uri == "index.zh.md" else "README.md"
        text = OUTSIDE.sub(r"`\1`", (ROOT / name).read_text(encoding="utf-8"))
        return README_LINK.sub("](", text.replace(".zh.md)", ".md)"))
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"`\1`", markdown)
