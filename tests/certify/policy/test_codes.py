"""``certify explain``: every reason code that the source can utter is explained, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from command import in_process
from documents import PAGES

from certify.base.assumptions import ASSUMPTIONS
from certify.base.errors import ExitCode, UsageError
from certify.base.records import RULES
from certify.base.verdict import Outcome, Status
from certify.claims.claim import Finding
from certify.claims.kind import Role
from certify.claims.registry import KINDS
from certify.cli.main import app
from certify.policy.codes import codes, explain, glossary, names, words
from certify.policy.policy import ITEMS, POLICIES, TEXTS
from certify.selection.rules import RULE_NAMES
from certify.stats.theorem import CRITERIA

ROOT = Path(__file__).resolve().parents[3]

# Spelled like codes, but none.
NOT_CODES = {
    "types of numbers, as files spell them": {
        *("F16", "F32", "F64", "BF16", "C64", "I16", "I32", "I64", "U16", "U32", "U64", "BOOL"),
        *("F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"),
        *("IQQ", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"),
    },
    "names of libraries and standards": {
        "BPE",
        "CAUSAL_LM",
        "LORA",
        "NFKC",
        "NFKD",
        "PREFIX_TUNING",
        "TRAINABLE_TOKENS",
    },
    "names of the operating system": {"O_BINARY", "O_NONBLOCK", "SC_PAGE_SIZE", "SC_PHYS_PAGES"},
    "environment variables": {
        *("CERTIFY_DATA", "CERTIFY_TRACEBACK", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "RANK"),
        *("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"),
        *("ACCELERATE_USE_CPU", "LOCAL_RANK", "MASTER_ADDR", "WORLD_SIZE"),
        *("MV2_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    },
    "names that a module exports": {
        *("BASE_ARM", "MAX_LINE_BYTES", "MAX_WITNESSES", "REFERENCE_ARM", "ROW_KINDS", "STATISTICS"),
    },
    "names of scores": {"BLEU"},
    "results of an in-toto predicate": {"FAILED", "PASSED"},
    "what an option is called in its help": {
        *(
            "BASE",
            "DATA",
            "DIR",
            "FILE",
            "MODEL",
            "NAME",
            "PATH",
            "POLICY",
            "TEXT",
            "PLAN",
            "KIND",
            "ADAPTER",
        ),
    },
    "what a command that comes next takes": {
        *("MERGED", "TUNED", "RULE", "RUN", "SOURCE", "TARGET", "TEMPLATE"),
    },
    "where the library found a value": {"COMMANDLINE", "DEFAULT_MAP"},
}
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def codes_in(source: str) -> Iterator[str]:
    """Codes in a source text; one that is put together at run time as a regular expression."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if len(node.value) > 2 and CODE.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.JoinedStr):
            parts = [
                part.value if isinstance(part, ast.Constant) else "[A-Z_]+" for part in node.value.values
            ]
            yield "".join(map(str, parts))


def uttered() -> set[str]:
    known_others = set().union(*NOT_CODES.values())
    found: set[str] = set()
    for package in ("certify", "lottery", "reports"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(codes_in(path.read_text(encoding="utf-8")))
    record = ROOT / "proofs_checks" / "run" / "record.py"
    found |= set(codes_in(record.read_text(encoding="utf-8")))
    return found - known_others


def test_the_search_for_codes_finds_them() -> None:
    source = (
        'raise E("x", code="A_B")\nItem("n", o, "C_D")\nf(code=f"WRONG_{role}")\ncode = "E_F" if x else "GHI"'
    )
    assert set(codes_in(source)) == {"A_B", "C_D", "WRONG_[A-Z_]+", "E_F", "GHI"}
    assert {"CLAIM_DIFFERS", "ROTATED_ROW", "NO_CERTIFICATE", "USAGE"} <= uttered()


def test_every_code_is_explained() -> None:
    lacking = {code for code in uttered() if not any(re.fullmatch(code, known) for known in codes())}
    assert lacking == set(), "write an entry in certify/policy/codes.toml, or list it above if it is no code"


def test_every_entry_is_a_code() -> None:
    spoken = uttered()
    unused = {known for known in codes() if not any(re.fullmatch(code, known) for code in spoken)}
    assert unused == set()


def test_what_is_no_code_occurs_all_the_same() -> None:
    sources = [
        path for package in ("certify", "lottery", "reports") for path in (ROOT / package).rglob("*.py")
    ]
    everything = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    others = set().union(*NOT_CODES.values())
    assert {name for name in others if f'"{name}"' not in everything} == set()


def test_texts_are_one_line_each_and_verdicts_are_among_them() -> None:
    for code in codes().values():
        for text in (code.meaning, code.remedy):
            assert text.isprintable(), code.code
            assert 5 < len(text) < 200, code.code
            assert not text.endswith("."), code.code
    assert {status.value for status in Status} <= codes().keys()


@pytest.mark.parametrize("name", sorted(name for entries in names().values() for name in entries))
def test_everything_that_is_listed_can_be_explained(name: str) -> None:
    first, *rest = explain(name)
    assert name.removeprefix("policy:").removeprefix("claim:") in first
    assert rest


def test_case_does_not_matter_and_unknown_names_are_refused() -> None:
    assert explain("claim_differs") == explain("CLAIM_DIFFERS")
    assert explain("a-law") == explain("A-LAW")
    for name in ("NO_SUCH_CODE", "policy:none", "policy:", "claim:none", "claim:", ""):
        with pytest.raises(UsageError) as caught:
            explain(name)
        assert caught.value.code == "CODE_UNKNOWN"


@pytest.mark.parametrize(
    "name",
    [
        *(
            *ITEMS,
            TEXTS,
            *CRITERIA,
            *Status,
            *Outcome,
            *Finding,
            *KINDS,
            *POLICIES,
            *(str(int(e)) for e in ExitCode),
        ),
        *(name for kind in KINDS.values() for name in kind.names),
        *(one.item for policy in POLICIES.values() for one in policy.claims),
        *("declared.1.gain.base.first-line", "template-gain:any-name:whole", "E⁰", "E*", "h", "N", "τ"),
        *get_args(Role),
        # Words of reports and of tickets.
        *(
            "premise",
            "transfer",
            "tuned",
            "chrF",
            "delta",
            "margin",
            "template",
            "r",
            "A-ORDER",
            "shift",
            "p",
        ),
        *("betting/2", "clopper-pearson/1", "exact", "descriptive", "sentence", "block:5", "document"),
        *(*RULES, *RULE_NAMES, "norm:64"),
    ],
)
def test_every_name_that_is_printed_can_be_explained(name: str) -> None:
    assert len(explain(name)) > 1


def test_a_word_is_no_code_that_is_spelled_alike() -> None:
    assert explain("unit")[1].startswith("  means: One independent draw")
    assert explain("UNIT")[2].startswith("  do: ")
    assert explain("E*") == explain("reference")
    assert "guide." in explain("exit code")[1], "a link is its text"
    assert [text for text in explain("whole") if "What part of an output is scored" in text]


def test_every_row_of_the_glossary_is_read() -> None:
    page = PAGES["certify/policy/glossary.md"]
    rows = [row for row in page.splitlines() if row.startswith("| ") and not row.startswith("| word ")]
    assert len(glossary()) == len(rows) > 50
    said = [text for row in glossary() for text in row[:2]]
    assert [text for text in said if "](" in text or "**" in text or "\\" in text] == []


def wrong(found: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Names of :func:`words` that nothing prints, those that are missing, and meanings that say nothing."""
    known = {
        "items of a report": {*ITEMS, TEXTS},
        "criteria": {*CRITERIA, "path", "calibrated"},
        "exit codes": {str(int(code)) for code in ExitCode},
    }
    said = {one.value for kind in (Outcome, Finding) for one in kind}
    differ = set[str]().union(*(names ^ found[topic].keys() for topic, names in known.items()))
    texts = [text for entries in found.values() for text in entries.values()]
    poor = {text for text in texts if len(text) < 4 or not text.isprintable() or texts.count(text) > 2}
    return differ | (found["outcomes and findings"].keys() - said) | poor


@pytest.mark.parametrize("topic", ["items of a report", "outcomes and findings", "criteria", "exit codes"])
def test_words_are_those_that_are_printed(topic: str) -> None:
    assert wrong(words()) == set()
    stale = {name: dict(entries) for name, entries in words().items()}
    stale[topic]["base.integrity"] = "what nothing prints"
    assert wrong(stale) == {"base.integrity"}
    stale = {name: dict(entries) for name, entries in words().items()}
    stale[topic] |= dict.fromkeys(stale[topic], "copied from another")
    assert wrong(stale) == {"copied from another"}


def test_a_policy_is_explained_with_its_thresholds() -> None:
    text = "\n".join(explain("policy:release"))
    for requirement in POLICIES["release"].claims:
        assert f"{requirement.claim} {requirement}" in text
    assert "retention:0.5:declared > 0" in text


def test_the_command_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    listed = in_process(["explain"], capsys)
    assert listed.code == 0
    assert all(name in listed.out for name in (*codes(), *ASSUMPTIONS, "policy:strict", "claim:gain"))
    shown = in_process(["explain", "A-LAW"], capsys)
    assert (shown.code, shown.out.splitlines()[0]) == (0, "A-LAW")
    assert in_process(["explain", "NOTHING_LIKE_IT"], capsys).code == 2


# --- what a remedy tells to do can be done ------------------------------------------------------------------

COMMAND: Any = typer.main.get_command(app)
OPTIONS = {
    name: {option for one in COMMAND.get_command(None, name).params for option in one.opts}
    for name in COMMAND.list_commands(None)
}


def undoable(text: str) -> list[str]:
    """Commands and options that a text names and that do not exist; an option belongs to its command."""
    wrong = []
    for said, name, rest in re.findall(r"(certify ([a-z]+)\b)([^,;:()\n]*)", text):
        if name not in OPTIONS:
            wrong.append(said)
        wrong += [one for one in re.findall("--[a-z-]+", rest) if one not in OPTIONS.get(name, ())]
    known = set().union(*OPTIONS.values()) | OTHERS
    return wrong + [one for one in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text) if one not in known]


OTHERS = {"--help", "--version", "--dirty"}


def spoken(path: Path) -> Iterator[str]:
    """Strings of a module, docstrings aside; the pieces of a formatted one are joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def test_remedies_name_commands_and_options_that_exist() -> None:
    assert undoable("certify evaluate --evidence ... --path N,G; --used") == []
    assert undoable("run certify evaluat") == ["certify evaluat"], "control"
    assert undoable("certify issue --nulls x") == ["--nulls"], "control: an option of another command"
    assert undoable("name it with --gone") == ["--gone"], "control"
    for code in codes().values():
        assert undoable(f"{code.meaning}; {code.remedy}") == [], code.code
    for folder in ("gate", "claims", "evidence", "policy", "certificate", "stats"):
        for path in (ROOT / "certify" / folder).glob("*.py"):
            for text in spoken(path):
                assert undoable(text) == [], (path.name, text)
