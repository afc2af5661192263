"""What hatchling cannot know from `pyproject.toml`: where the project is published, and so where its links lead.

The address is that of the repository that builds a release, in the variable `ALBERT_HUB_BRIDGE_URL`; the workflow
`release.yml` sets it. A source distribution keeps it in `PKG-INFO`. Without an address there are no project URLs, and
links between files of the repository become text, because on a package index they would lead nowhere.
"""

from __future__ import annotations

import os
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


VARIABLE = "ALBERT_HUB_BRIDGE_URL"

# A link of Markdown to a file of the repository: no scheme, and no place on the same page.
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<file>(?!\w+:|#)[^)#\s]+)(?P<place>#[^)\s]*)?\)")


class ReleaseMetadata(MetadataHookInterface):
    """Fill in the dynamic fields `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the fields to the `project` table."""
        root = Path(self.root)
        tree = f"{url}/blob/v{_version(root)}" if (url := _address(root)) else None
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, tree)}
        if tree is not None:
            metadata["urls"] = {
                "Source": url,
                "Documentation": f"{tree}/docs/index.md",
                "Changelog": f"{tree}/CHANGELOG.md",
                "Issues": f"{url}/issues",
            }


def with_absolute_links(text: str, tree: str | None) -> str:
    """Return Markdown whose links to files of the repository lead below an address, or are text without one."""

    def replace(link: re.Match[str]) -> str:
        if tree is None:
            return f"{link['text']} (`{link['file']}`)"
        return f"[{link['text']}]({tree}/{link['file']}{link['place'] or ''})"

    return _LINK.sub(replace, text)


def _address(root: Path) -> str | None:
    if address := os.environ.get(VARIABLE, "").rstrip("/"):
        return address
    if (built := root / "PKG-INFO").is_file():
        urls = HeaderParser().parsestr(built.read_text(encoding="utf-8")).get_all("Project-URL", [])
        return dict(entry.split(", ", 1) for entry in urls).get("Source")
    return None


def _version(root: Path) -> str:
    return (root / "albert_hub_bridge" / "_version.py").read_text(encoding="utf-8").split('"')[-2]
