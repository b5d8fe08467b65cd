"""What documents point at exists: sections of the theory, links, modules, files. Judges have controls."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
from documents import PAGES, tracked
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from certify.base.assumptions import ASSUMPTIONS
from certify.base.version import __version__
from certify.claims.registry import KINDS
from certify.cli.registry import SCHEMAS, load

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("certify", "lottery", "reports", "proofs_checks", "tests")
LEFT_ALONE = ("reports/published/",)  # written with what they describe, and bound by digest

_PATH = re.compile(
    r"(?<![\w./-])(?:\.\./)*((?:certify|lottery|reports|proofs_checks|tests|docs)(?:/[\w.*-]+)+)"
)
# Two dots at least: the names of schemas have one.
_MODULE = re.compile(r"`((?:certify|lottery|reports|proofs_checks)(?:\.\w+){2,})")
_FILE = re.compile(r"`([\w./*-]+\.py)`")
_ROOM = re.compile(r"\| `([\w/]+)/`")  # a row about a folder names files in it
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SECTIONS = re.compile(r"[Tt]heory(?:\.md)?`?\s+((?:§[0-9]+[a-z]?(?:\.[0-9]+)?(?:,? (?:and|to) |, )?)+)")
_SECTION = re.compile(r"§([0-9]+[a-z]?(?:\.[0-9]+)?)")
_HEADING = re.compile(r"^#+ §([0-9]+[a-z]?(?:\.[0-9]+)?) ", re.MULTILINE)

MANUALS = [path for path in PAGES if not path.startswith(LEFT_ALONE) and path != "docs/moved.md"]
SOURCES = [path for path in tracked() if path.endswith((".py", ".toml")) and path.startswith(PACKAGES)]
SOURCES.remove("tests/test_docs.py")  # its controls name what does not exist


def sections_named(text: str) -> set[str]:
    """Sections that ``theory §...`` in ``text`` names."""
    return {name for run in _SECTIONS.findall(text) for name in _SECTION.findall(run)}


def broken_links(text: str, folder: Path) -> list[str]:
    """Targets of relative links in Markdown that do not exist, or name no heading of their file."""
    return [
        target
        for target in _LINK.findall(text)
        if not re.match("[a-z]+:", target) and not _leads(target, text, folder)
    ]


def _leads(target: str, text: str, folder: Path) -> bool:
    path, _, anchor = target.partition("#")
    if path and not (folder / path).exists():
        return False
    return not anchor or anchor in anchors((folder / path).read_text(encoding="utf-8") if path else text)


def anchors(text: str) -> set[str]:
    """Anchors that a Markdown file offers: its headings in lower case, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths_named(text: str) -> Iterator[str]:
    """Paths and modules of the project that ``text`` names, as paths from the root."""
    yield from (path.rstrip(".") for path in _PATH.findall(text))
    yield from _MODULE.findall(text)


def files_named(text: str) -> Iterator[str]:
    """Python files in backticks, as paths from the folder of the document."""
    for line in text.splitlines():
        room = _ROOM.match(line)
        for name in _FILE.findall(line):
            yield f"{room[1]}/{name}" if room and not name.startswith((*PACKAGES, "..")) else name


def missing(names: Iterable[str], folder: Path = ROOT) -> list[str]:
    """Those of the paths, globs and modules that name nothing; a module may end with a name inside it."""
    return [name for name in names if not _exists(name, folder)]


def _exists(name: str, folder: Path) -> bool:
    if "/" in name or name.endswith(".py"):
        return any(ROOT.glob(name)) or any(folder.glob(name))
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        path = ROOT.joinpath(*parts[:end])
        if path.is_dir():
            return end == len(parts)
        if path.with_suffix(".py").is_file():
            # What follows a module is a name in it.
            return all(part in path.with_suffix(".py").read_text(encoding="utf-8") for part in parts[end:])
    return False


def test_the_documents_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/theory.md", "certify/README.md"} <= set(MANUALS)
    assert "certify/scan/scan.py" in SOURCES


THEORY = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
SECTIONS = set(_HEADING.findall(THEORY))


def test_the_theory_has_its_sections() -> None:
    assert {"1", "2", "3", "4", "4b", "5", "6", "7", *(f"6.{i}" for i in range(1, 8))} == SECTIONS


def test_the_theory_has_every_claim_and_assumption() -> None:
    assert [kind for kind in KINDS if f"`{kind}`" not in THEORY] == []
    assert [name for name in ASSUMPTIONS if f"| {name} |" not in THEORY] == []


@pytest.mark.parametrize("path", [*SOURCES, *MANUALS])
def test_sections_of_the_theory_exist(path: str) -> None:
    assert sections_named((ROOT / path).read_text(encoding="utf-8")) <= SECTIONS


def test_subsections_are_named_as_such_and_the_status_has_their_code() -> None:
    (row,) = re.findall(r"^\| §6 \|.*", THEORY, re.MULTILINE)
    for path in SOURCES:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"§\w+,? point", text), path
        if path.startswith(("certify/", "lottery/")) and any("." in name for name in sections_named(text)):
            assert any(f"`{place}`" in row for place in (path, f"{Path(path).parent}/")), path


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: str) -> None:
    assert broken_links((ROOT / path).read_text(encoding="utf-8"), (ROOT / path).parent) == []


@pytest.mark.parametrize("path", MANUALS)
def test_modules_and_paths_exist(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert missing([*paths_named(text), *files_named(text)], (ROOT / path).parent) == []


def test_a_section_that_is_gone_is_seen() -> None:
    text = "(theory §5, §90) and theory §6.3, theory §4b; theory §2 to §7"
    assert sections_named(text) - SECTIONS == {"90"}
    assert sections_named(text) == {"5", "90", "6.3", "4b", "2", "7"}


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, here\n")
    text = (
        "[a](there.md) [b](there.md#a-heading-here) [c](gone.md) [d](there.md#gone) [e](https://example.org)"
    )
    assert broken_links(text, tmp_path) == ["gone.md", "there.md#gone"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`certify/scan/scan.py` and certify/scan/gone.py.", ["certify/scan/gone.py"]),
        ("`certify/gone/`, `tests/support`", ["certify/gone"]),
        ("`certify.scan.scan` `certify.scan.gone`", ["certify.scan.gone"]),
        ("`certify.base.errors.CertifyError` `certify.base.errors.Gone`", ["certify.base.errors.Gone"]),
        ("`certify/policy/*.toml`, `certify/policy/*.gone`", ["certify/policy/*.gone"]),
    ],
)
def test_a_module_that_is_gone_is_seen(text: str, found: list[str]) -> None:
    assert missing(paths_named(text)) == found


def test_a_file_is_looked_for_in_the_folder_of_its_row() -> None:
    text = "| `scan/` | the scan | `scan.py`, `gone.py` |\n`scan/scan.py`"
    assert missing(files_named(text), ROOT / "certify") == ["scan/gone.py"]


def test_modules_are_where_they_moved() -> None:
    moved = (ROOT / "docs/moved.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[\w.]+` \| `([\w.]+)`", moved, re.MULTILINE)
    assert rows
    assert [name for name in rows if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


def test_the_readme_lists_the_core() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = re.search(r"light core\s+\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert core is not None
    assert core[1].split(", ") == [re.split(r"[<>=]", one)[0] for one in project["dependencies"]]


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def told(page: str) -> dict[str, dict[str, str]]:
    """Fields of each table in a page about plans, and the default that it gives for each."""
    found: dict[str, dict[str, str]] = {}
    for part in page.split("\n## ")[1:]:
        rows = re.findall(r"^\| (`.+?`) \| (.*?)\| ", part, re.MULTILINE)
        name = re.sub(r"[`\[\]]", "", part.splitlines()[0])
        found[name] = {one: said.strip() for names, said in rows for one in re.findall("`(.+?)`", names)}
    return found


def defaults(fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Each field with its default as a page spells it."""
    return {name: "" if one.is_required() else _spelled(one.default) for name, one in fields.items()}


def _spelled(default: object) -> str:
    if default is None or isinstance(default, str):
        return f"`{default}`" if default else "none"
    return f"`{json.dumps(default)}`"


def tables_of(plan: type[BaseModel]) -> dict[str, dict[str, str]]:
    """Tables of a plan with their fields, and under ``Top level`` what is no table."""
    kinds = {name: kind for name, one in plan.model_fields.items() if (kind := _table(one.annotation))}
    top = {name: one for name, one in plan.model_fields.items() if name not in kinds}
    return {"Top level": defaults(top)} | {name: defaults(kind.model_fields) for name, kind in kinds.items()}


def _table(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_table, get_args(annotation))), None)


def test_the_page_about_plans_has_every_field_and_default() -> None:
    page = (ROOT / "docs/plans.md").read_text(encoding="utf-8")
    stated = tables_of(load(SCHEMAS["plan"]))
    assert told(page) == stated
    assert told(page.replace("| `8` |", "| `9` |")) != stated, "control: another default"
    assert told(page.replace("`micro_batch`", "`batch`")) != stated, "control: another name"
