"""Which module may import which, and what importing the packages costs. Judged on the syntax trees."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("certify", "lottery", "reports", "proofs_checks")

# The numpy half of lottery: what a gate runs. Every other module of lottery counts as the torch half.
NUMPY_HALF = (
    *("columns", "dtypes", "npyfile", "safefile", "checkpoint", "modelconfig", "tables"),
    *("vocabulary", "textfile", "corpus", "templates", "segments"),
    *("smirnov", "ks", "ks_numpy", "ks_numba", "multiplicity", "selection"),
    *("rowfile", "frequency", "scanfile", "bundle", "ticketing"),
    *("staging", "released", "transfer", "served", "merge", "adapters"),
    *("geometry", "standin_tokenizer"),
    *("score", "parts", "task", "usedtext", "evidence", "modeldigest", "armscores"),
    *("nulls", "direction", "opportunity", "unrelated", "overlap", "controls"),
)

# Lowest first. A module may import modules of its own layer and below, inside functions too.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "foundation",
        (
            "certify",
            "certify.text",
            "certify.errors",
            "certify.records",
            "certify.exactmath",
            "certify.checker",
            "lottery",
            "reports",
            "proofs_checks",
        ),
    ),
    (
        "core",
        (
            *("certify.schema", "certify.tickets", "certify.verdict", "certify.policy"),
            *("certify.assumptions", "certify.evidence", "certify.evidence_record"),
            "certify.evidence_schema",
            *("certify.limits", "certify.bounds", "certify.betting", "certify.budget"),
            *("certify.resampling", "certify.power"),
            *("certify.theorem", "certify.steps", "certify.guarantee", "certify.dataset_split"),
            *("certify.claims", "certify.claims_evidence", "certify.claims_agreement"),
            *("certify.claims_guarantee", "certify.claims_quality", "certify.claims_exact"),
            *("certify.claims_loss", "certify.claims_report", "certify.claims_corpus"),
            *("certify.corpus_scores", "certify.null_labels", "certify.choice_record"),
            *("certify.proofs", "certify.proof_items"),
            *("certify.certificate", "certify.requirement", "certify.opposite", "certify.stating"),
            *("certify.answers", "certify.codes"),
            *("certify.ltt", "certify.planning", "certify.drawn"),
        ),
    ),
    ("numpy half", tuple(f"lottery.{name}" for name in NUMPY_HALF)),
    (
        "gate",
        (
            *("certify.integrity", "certify.recheck", "certify.gate", "certify.claims_subject"),
            *("certify.issue", "certify.examination"),
            *("certify.sequential", "certify.guaranteed"),
        ),
    ),
    ("torch half", ("lottery.*",)),
    ("reports and proofs", ("reports.*", "proofs_checks.*")),
    ("proofs on a model", ("proofs_checks.llama", "proofs_checks.prove")),
    ("command line", ("certify.cli.*", "certify.cli", "certify.__main__")),
)
# A gate stands beside the torch half, not above it; renderers and proofs know nothing of training either.
FORBIDDEN = {("gate", "torch half"), ("torch half", "gate"), ("reports and proofs", "torch half")}

# Third-party packages that only the torch half may touch, and commands and C1 on a model inside functions.
TORCH = ("torch", "transformers", "datasets", "accelerate", "peft")

# The public door names what it opens in a table of strings, loaded on first use.
DOORS = ("certify", "lottery")


def layer_of(module: str) -> str:
    for name, members in LAYERS:
        if module in members:
            return name
    for name, members in LAYERS:
        if any(member.endswith(".*") and module.startswith(member[:-1]) for member in members):
            return name
    raise AssertionError(f"{module} has no layer: add it to LAYERS in {Path(__file__).name}")


def imports_of(source: str, module: str) -> Iterator[tuple[str, int, bool]]:
    """(imported module or name, line, inside a function) of every import that can run, however deep."""
    package = module if module in (*PACKAGES, "certify.cli") else module.rpartition(".")[0]

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
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base, node.lineno, inner
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, inner
        inner = inner or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(source), False)


def violations(source: str, module: str, known: set[str]) -> list[str]:
    """Every import in ``source`` that the layers forbid to ``module``."""
    order = [name for name, _ in LAYERS]
    own = layer_of(module)
    found = []
    for target, line, inner in imports_of(source, module):
        free = own == "torch half" or (own in ("command line", "proofs on a model") and inner)
        if target.split(".")[0] in TORCH and not free:
            found.append(f"{module}:{line} imports {target}, which only the torch half may")
        if target not in known:
            continue
        other = layer_of(target)
        if order.index(other) > order.index(own) or (own, other) in FORBIDDEN:
            found.append(f"{module}:{line} ({own}) imports {target} ({other})")
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
    assert {"certify.gate", "certify.cli.main", "lottery.ks", "reports.terminal", "proofs_checks"} <= set(
        MODULES
    )
    for name in NUMPY_HALF:
        assert f"lottery.{name}" in MODULES, f"lottery.{name} is listed but does not exist"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert violations(source, module, set(MODULES)) == []


# What the check must report: without these it could pass because it sees nothing.
PLANTED = {
    "upward": ("certify.schema", "from certify.gate import check"),
    "inside a function": ("lottery.ks", "def f():\n    if True:\n        import certify.recheck"),
    "a module by name from its package": ("lottery.ks", "from certify import gate"),
    "relative": ("certify.records", "from . import schema"),
    "relative from below": ("lottery.ks", "from .tune import x"),
    "torch in the numpy half": ("lottery.ks", "def f():\n    import torch.nn"),
    "the torch half in the numpy half": ("lottery.selection", "from lottery import tune"),
    "the torch half in the gate": ("certify.recheck", "import lottery.tune"),
    "torch before a command runs": ("certify.cli.tune", "import torch"),
    "torch before a proof on a model runs": ("proofs_checks.llama", "import torch"),
    "torch in another proof": ("proofs_checks.exact", "def f():\n    import torch"),
    "the command line in a report": ("reports.terminal", "from certify.cli.main import app"),
    "in the else of TYPE_CHECKING": (
        "certify.schema",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import certify.gate",
    ),
}


@pytest.mark.parametrize(("module", "source"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_reported(module: str, source: str) -> None:
    assert violations(source, module, {*MODULES, "lottery.tune"})


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lottery.ks", "from certify.errors import UsageError\nimport numpy"),
        (
            "certify.cli.check",
            "def f():\n    from lottery.tune import tune\n    from reports.view import view",
        ),
        ("certify.schema", "if TYPE_CHECKING:\n    from certify.gate import check"),
        ("lottery.tune", "import torch\nfrom lottery.ks import scan"),
    ],
)
def test_what_is_allowed_is_not_reported(module: str, source: str) -> None:
    assert violations(source, module, {*MODULES, "lottery.tune"}) == []


def test_a_module_without_a_layer_is_an_error() -> None:
    with pytest.raises(AssertionError, match="has no layer"):
        layer_of("certify.unheard_of")


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
SCRIPTS = ("certify.cli", "certify.__main__", "reports.demo", "reports.results", "reports.rehearsal")


@pytest.mark.parametrize("module", sorted(m for m in MODULES if not m.startswith(SCRIPTS)))
def test_libraries_neither_print_nor_exit(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "sys.exit", "exit", "os._exit"}, (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_public_name_has_a_docstring(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    missing = [] if ast.get_docstring(tree) or module == "certify.cli" else ["the module"]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [node.name]
    assert missing == []
