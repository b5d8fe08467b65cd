"""Which module may import which, and what importing the packages costs. Judged on the syntax trees."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("certify", "lottery", "reports", "proofs_checks")

# The floors of the house, lowest first: a module imports modules of its own floor and of floors below it.
FLOORS = (
    *(
        f"certify.{room}"
        for room in ("base", "tables", "models", "scan", "selection", "ticket", "stats", "evidence")
    ),
    *(f"certify.{room}" for room in ("claims", "certificate", "policy", "checker", "gate")),
    *("certify", "certify.cli", "certify.__main__"),
    *(
        f"lottery.{room}"
        for room in ("text", "model", "tuning", "controls", "evaluation", "serving", "pretrain")
    ),
    *(f"lottery.experiment.{room}" for room in ("plan", "engine", "steps", "layout")),
    *("lottery.experiment", "lottery", "lottery.cli"),
    "reports",
    *(f"proofs_checks.{room}" for room in ("check", "theory", "numbers", "worlds", "coverage", "rivals")),
    *("proofs_checks.mutations", "proofs_checks", "proofs_checks.run"),
)
MOST_MODULES = 13  # of a folder
MOST_LINES = 400  # of a module

# Third-party packages that only lottery may touch, and inside functions the commands and C1 on a model.
TORCH = ("torch", "transformers", "datasets", "accelerate", "peft")
INSIDE = ("lottery.cli", "proofs_checks.theory.llama")

# The public doors name what they open in a table of strings, loaded on first use.
DOORS = ("certify", "lottery")


def floor_of(module: str) -> int:
    """Index of the floor that a module is on: the longest name in FLOORS that it begins with."""
    fitting = [floor for floor in FLOORS if module == floor or module.startswith(f"{floor}.")]
    rooms = [
        floor for floor in fitting if module == floor or floor not in ("certify", "lottery", "proofs_checks")
    ]
    if not rooms:
        raise AssertionError(f"{module} is in no room: add its folder to FLOORS in {Path(__file__).name}")
    return FLOORS.index(max(rooms, key=len))


def imports_of(source: str, module: str, *, package: bool = False) -> Iterator[tuple[str, int, bool]]:
    """(imported module or name, line, inside a function) of every import that can run, however deep."""
    parent = module if package else module.rpartition(".")[0]

    def walk(node: ast.AST, inner: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, inner)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, inner
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base, node.lineno, inner
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, inner
        inner = inner or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(source), False)


def violations(source: str, module: str, known: set[str]) -> list[str]:
    """Every import in ``source`` that points upward, or loads torch where ``module`` may not."""
    own = floor_of(module)
    found = []
    for target, line, inner in imports_of(source, module):
        free = module.startswith("lottery.") and not module.startswith("lottery.cli")
        free = free or (module.startswith(INSIDE) and inner)
        if target.split(".")[0] in TORCH and not free:
            found.append(f"{module}:{line} imports {target}, which only lottery may")
        if target in known and target != module and floor_of(target) > own:
            found.append(f"{module}:{line} imports {target}, which stands above it")
    return found


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def test_the_walk_finds_the_packages() -> None:
    some = {
        "certify.gate.check",
        "certify.cli.main",
        "certify.scan.scan",
        "reports.terminal",
        "proofs_checks",
    }
    assert some <= set(MODULES)
    empty = [f for f in FLOORS if not any(m == f or m.startswith(f"{f}.") for m in MODULES)]
    assert empty == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert violations(source, module, set(MODULES)) == []


# What the check must report: without these it could pass because it sees nothing.
PLANTED = {
    "upward": ("certify.base.jsonio", "from certify.gate.check import check"),
    "to another package": ("certify.gate.check", "from lottery.text.score import score"),
    "inside a function": ("certify.scan.scan", "def f():\n    if True:\n        import certify.gate.recheck"),
    "a module by name from its package": ("certify.scan.scan", "from certify.gate import check"),
    "relative": ("certify.base.records", "from ..gate import check"),
    "torch in certify": ("certify.scan.scan", "def f():\n    import torch.nn"),
    "torch before a command runs": ("lottery.cli.tune", "import torch"),
    "torch before a proof on a model runs": ("proofs_checks.theory.llama", "import torch"),
    "torch in another proof": ("proofs_checks.theory.exact", "def f():\n    import torch"),
    "a renderer in the command line": ("certify.cli.gate.check", "from reports.terminal import render"),
    "in the else of TYPE_CHECKING": (
        "certify.base.jsonio",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import certify.gate.check",
    ),
}


@pytest.mark.parametrize(("module", "source"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_reported(module: str, source: str) -> None:
    assert violations(source, module, set(MODULES))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("certify.scan.scan", "from certify.base.errors import UsageError\nimport numpy"),
        ("lottery.cli.tune", "def f():\n    from lottery.tuning.tune import tune\n    import torch"),
        ("certify.base.jsonio", "if TYPE_CHECKING:\n    from certify.gate.check import check"),
        ("lottery.tuning.tune", "import torch\nfrom certify.scan.scan import scan"),
    ],
)
def test_what_is_allowed_is_not_reported(module: str, source: str) -> None:
    assert violations(source, module, set(MODULES)) == []


def test_a_module_in_no_room_is_an_error() -> None:
    with pytest.raises(AssertionError, match="is in no room"):
        floor_of("certify.unheard_of.module")


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that reach themselves along ``arrows``."""
    reached = {module: set(targets) for module, targets in arrows.items()}
    changed = True
    while changed:
        changed = False
        for targets in reached.values():
            more = set().union(*(reached.get(target, set()) for target in targets)) - targets
            changed = changed or bool(more)
            targets |= more
    return sorted(module for module, targets in reached.items() if module in targets)


def arrows_of(files: dict[str, str]) -> dict[str, set[str]]:
    """Which module imports which, given the source of each."""
    return {
        module: {
            target for target, _, _ in imports_of(source, module) if target in files and target != module
        }
        for module, source in files.items()
    }


def test_no_circle_of_files() -> None:
    assert circles(arrows_of({m: path.read_text(encoding="utf-8") for m, path in MODULES.items()})) == []


def test_a_planted_circle_is_seen() -> None:
    planted = {"a": "import b", "b": "def f():\n    from c import x", "c": "import a", "d": "import a"}
    assert circles(arrows_of(planted)) == ["a", "b", "c"]


def crowded(paths: Sequence[str]) -> list[str]:
    """Folders with more modules than a person takes in at a glance."""
    count = Counter(path.rpartition("/")[0] for path in paths if not path.endswith("/__init__.py"))
    return [f"{folder}: {n}" for folder, n in count.items() if n > MOST_MODULES]


def test_no_folder_is_crowded() -> None:
    assert crowded([str(path.relative_to(ROOT)) for path in MODULES.values()]) == []
    assert crowded([f"certify/x/{i}.py" for i in range(MOST_MODULES + 1)]) == [
        f"certify/x: {MOST_MODULES + 1}"
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_is_long(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


# --- what importing costs --------------------------------------------------------------------------------

HEAVY = ("numpy", "scipy", "pydantic", "rich", "numba", "safetensors", *TORCH)


def loaded_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter that ran ``code``."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys\nprint('LOADED', *{{m.split('.')[0] for m in sys.modules}})",
        ],
        capture_output=True,
        text=True,
        env=env,
        check=True,
        timeout=120,
    )
    return set(run.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("module", ["certify", "lottery", "reports", "certify.cli.main"])
def test_importing_a_package_loads_nothing_heavy(module: str) -> None:
    assert not loaded_after(f"import {module}") & set(HEAVY)


def test_the_public_doors_open() -> None:
    for name in DOORS:
        package = __import__(name)
        for public in package.__all__:
            assert getattr(package, public) is not None
        with pytest.raises(AttributeError):
            _ = package.unheard_of


def test_the_control_of_the_import_test_loads_numpy() -> None:
    assert {"numpy", "pydantic"} <= loaded_after("import certify; certify.check")


# --- housekeeping ----------------------------------------------------------------------------------------

# Folders of a machine (wherever this checkout lies, too), notes to self, debuggers.
CHECKOUT = re.escape(f"{Path(__file__).resolve().parents[1]}/")
LEFTOVERS = re.compile(rf"{CHECKOUT}|/home/|/root/|/tmp/|\bTODO\b|\bFIXME\b|\bXXX\b|\bbreakpoint\(|\bpdb\b")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_leftovers(module: str) -> None:
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    assert [f"{i}: {line}" for i, line in enumerate(lines, 1) if LEFTOVERS.search(line)] == []


# What is run, not imported.
SCRIPTS = (
    *("certify.cli", "certify.__main__", "lottery.cli", "proofs_checks.run.command"),
    *("reports.demo", "reports.results", "reports.rehearsal"),
)


@pytest.mark.parametrize("module", sorted(m for m in MODULES if not m.startswith(SCRIPTS)))
def test_libraries_neither_print_nor_exit(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "sys.exit", "exit", "os._exit"}, (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"


# It imports nothing of this project and writes down the same concepts once more, under the same names.
CHECKER = "certify.checker."


def defined_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Public class names that several modules define, and these modules; the independent checker aside."""
    found: dict[str, list[str]] = {}
    for module, source in sources.items():
        if not module.startswith(CHECKER):
            for node in ast.parse(source).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(module)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_class_name_has_one_meaning() -> None:
    assert defined_twice({m: path.read_text(encoding="utf-8") for m, path in MODULES.items()}) == {}


def test_a_class_name_with_two_meanings_is_seen() -> None:
    planted = {
        "certify.a": "class Step: ...\nclass _Part: ...\nOnce = int",
        "lottery.b": "class Step: ...\nclass _Part: ...\nclass Once: ...",
        "certify.checker.c": "class Step: ...",
    }
    assert defined_twice(planted) == {"Step": ["certify.a", "lottery.b"]}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_public_name_has_a_docstring(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [node.name]
    assert missing == []
