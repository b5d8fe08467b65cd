"""The files of the project, and the text of its pages."""

from __future__ import annotations

import subprocess

from command import ROOT


def tracked() -> list[str]:
    """Paths of all files of the project, whether or not it is a git checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]
    found = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith((".", "build/")))


PAGES = {path: (ROOT / path).read_text(encoding="utf-8") for path in tracked() if path.endswith(".md")}
"""The text of every Markdown file, by its path from the root."""
