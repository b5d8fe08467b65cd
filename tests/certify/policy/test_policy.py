"""Policies: what the shipped ones ask, what a policy file may say, and the rules for a single claim."""

from __future__ import annotations

import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from command import in_process
from documents import PAGES
from hypothesis import given
from hypothesis import strategies as st

import certify.policy.policy
from certify.base.errors import InvalidInputError, UsageError
from certify.base.verdict import Outcome
from certify.checker import verdict
from certify.claims.claim import Claim, Finding
from certify.policy.policy import EVIDENCE_ITEMS, INTEGRITY_ITEMS, POLICIES, get_policy, parse_policy
from certify.policy.requirement import TESTS, Requirement, judge

FILES = Path(certify.policy.policy.__file__).parent

# By hand, from the specification of the policies.
ASKED = {
    "selection": {},
    "paper": {"guarantee:published": "held"},
    "release": {
        "gain:base:declared": "above 0",
        "retention:0.5:declared": "above 0",
        "unrelated-loss:base": "at_most 1/10",
        "unrelated-excess:base": "at_most 1/20",
    },
}
ASKED["drop-in"] = ASKED["release"] | {
    "non-inferiority:reference:declared": "at_least -1",
    "guarantee:calibrated": "held",
}
ASKED["science"] = {
    f"better-than-nulls:{group}:first-line": "above 0" for group in ("chance", "rivals", "one-row")
} | {"template-gain:base:first-line": "above 0"}
ASKED["strict"] = ASKED["drop-in"] | {"token-agreement:reference": "at_least 19/20"}

MINIMAL = """
schema = "certify.policy"
schema_version = 1
name = "own"
question = "Well?"
items = ["integrity.base"]
"""


def test_the_policy_of_ones_own_in_the_documents_is_whole(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.+?)```", PAGES["docs/policies.md"], re.DOTALL)
    path = tmp_path / "own.toml"
    path.write_text(block)
    own, release = get_policy(str(path)), POLICIES["release"]
    assert own.claims[: len(release.claims)] == release.claims
    assert len(own.claims) == len(release.claims) + 1
    assert (own.items, own.loosens) == (release.items, ())


def with_claims(text: str, *, delta: str = "0.05", extra: str = "") -> bytes:
    items = ", ".join(f'"{name}"' for name in (*INTEGRITY_ITEMS, *EVIDENCE_ITEMS))
    head = MINIMAL.replace('["integrity.base"]', f"[{items}]")
    return f'{head}\ndelta = "{delta}"\n{extra}\n{text}'.encode()


# --- the shipped policies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASKED)
def test_the_shipped_policies_ask_what_they_must(name: str) -> None:
    policy = POLICIES[name]
    asked = {
        one.claim: one.test if one.threshold is None else f"{one.test} {one.threshold}"
        for one in policy.claims
    }
    assert asked == ASKED[name]
    assert policy.shipped
    assert policy.accept == (), "no assumption about the model is accepted by a policy of the package"
    assert policy.reads_evidence == (name != "selection")
    assert policy.delta == (Fraction(1, 20) if ASKED[name] else None)
    assert "A-DOCUMENTS" not in policy.taken, "who groups sentences could do so after the results"


def test_each_policy_asks_for_all_that_the_selection_asks_for() -> None:
    selection = set(POLICIES["selection"].requires)
    for policy in POLICIES.values():
        assert selection <= set(policy.requires)
    assert "premise.published" in POLICIES["paper"].items
    assert set(POLICIES["strict"].design) < set(POLICIES["release"].design)


def test_the_files_and_the_policies_are_the_same() -> None:
    assert {path.stem for path in FILES.glob("*.toml")} == {*POLICIES, "codes", "words"}
    for name in POLICIES:
        data = (FILES / f"{name}.toml").read_bytes()
        assert parse_policy(data, shipped=True) == POLICIES[name] == get_policy(name)


def test_a_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    policy = get_policy(str(path))
    assert (policy.name, policy.shipped, policy.requires) == ("own", False, ("integrity.base",))
    with pytest.raises(UsageError):
        get_policy(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("threshold", ["0", "-5.0"])
def test_a_tampered_copy_cannot_pass_for_a_shipped_policy(tmp_path: Path, threshold: str) -> None:
    path = tmp_path / "release.toml"
    text = (
        (FILES / "release.toml").read_text(encoding="utf-8").replace('above = "0"', f'above = "{threshold}"')
    )
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        get_policy(str(path))
    assert caught.value.code == "POLICY_NAME"


ALIKE = [
    *("Release", "RELEASE", "re1ease", "reiease", "re|ease", "re-lease", "release.", "relea5e", "r3lease"),
    *(
        "r\u0435lease",
        "\u0433elease\u0301".replace("\u0433", "r"),
        "rele\u03b1se",
        "\uff32elease",
        "rel\u200bease",
    ),
    *(
        "rele4se",
        "s7rict",
        "paper_",
        "\u0440\u0430\u0440\u0435r",
        "str1ct",
        "strlct",
        "selectlon",
        "SELECTI0N",
        "\u0455trict",
    ),
]
OTHER = ["own", "release2", "releases", "my-release", "paper-strict", "stricter", "modern"]


@pytest.mark.parametrize("name", [*ALIKE, *OTHER])
def test_a_name_that_is_easily_taken_for_a_shipped_one_is_refused(
    ticket_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(MINIMAL.replace('"own"', json.dumps(name, ensure_ascii=False)), encoding="utf-8")
    ran = in_process(["check", ticket_path, "--policy", path], capsys)
    alone = in_process(["checker", ticket_path.parent, "--policy", path, "--quiet"], capsys)
    if name in OTHER:
        assert (ran.code, alone.code) == (0, 0)
        return
    assert (ran.code, alone.code) == (2, 2)
    assert "[POLICY_NAME]" in ran.one_line()
    assert "USAGE POLICY_NAME" in alone.out


def test_a_report_says_whose_policy_it_is(
    ticket_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    words = ["check", ticket_path, "--policy", path]
    shown = " ".join(in_process(words, capsys).out.split())
    assert f"own, a policy of your own ({path}, sha256 {digest[:16]}…)".replace(" ", "") in shown.replace(
        " ", ""
    )
    data = json.loads(in_process([*words, "--format", "json"], capsys).out)
    assert (data["policy_file"], data["policy_sha256"]) == (str(path), digest)
    words[-1] = "selection"
    assert "of your own" not in in_process(words, capsys).out
    assert json.loads(in_process([*words, "--format", "json"], capsys).out)["policy_file"] is None


def test_what_a_policy_loosens_is_said(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    head = (
        'schema = "certify.policy"\nschema_version = 1\nname = "own"\nextends = "release"\nquestion = "?"\n'
    )
    path.write_text(head + 'items = ["checker.agrees"]\ndelta = "0.01"\n', "utf-8")
    assert get_policy(str(path)).loosens == ()
    design = 'design = ["A-UNITS", "A-DOCUMENTS", "A-EVIDENCE"]\n'
    path.write_text(f'{head}{design}delta = "0.2"\nnon_claims = []\n', "utf-8")
    dropped = len(get_policy("release").non_claims)
    assert get_policy(str(path)).loosens == (
        "it takes A-DOCUMENTS as given, release does not",
        "its delta is 0.2, that of release 0.05",
        f"it leaves out {dropped} things that release does not claim",
    )


def test_the_digest_covers_all_that_a_policy_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.toml"
    path.write_text(MINIMAL.replace("items =", 'extends = "release"\nitems =').replace("base", "x"), "utf-8")
    path.write_text(path.read_text("utf-8").replace('items = ["integrity.x"]', ""), encoding="utf-8")
    files = [path, FILES / "release.toml", FILES / "selection.toml"]
    pinned = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert get_policy(str(path)).sha256 == verdict.named(str(path)).sha256 == pinned
    assert POLICIES["selection"].sha256 == hashlib.sha256(files[-1].read_bytes()).hexdigest()

    def edited(name: str) -> bytes:
        return (FILES / f"{name}.toml").read_bytes().replace(b'"0.1"', b'"0.9"')

    monkeypatch.setattr(certify.policy.policy, "_file", edited)
    monkeypatch.setattr(verdict, "resource", lambda _, name: edited(name.removesuffix(".toml")))
    changed = get_policy(str(path))
    assert "9/10" in {str(one.threshold) for one in changed.claims}, "control: the parent was edited"
    assert changed.sha256 == verdict.named(str(path)).sha256 != pinned


# --- what a file may say -----------------------------------------------------------------------------------

GAIN = '[[claim]]\nname = "gain:base:cut"\n'

REFUSED = {
    "not TOML": (b"name = ", "POLICY_MALFORMED"),
    "not UTF-8": (b"\xff", "POLICY_MALFORMED"),
    "empty": (b"", "POLICY_MALFORMED"),
    "only that the checker agrees": (
        MINIMAL.replace('"integrity.base"', '"checker.agrees"').encode(),
        "POLICY_EMPTY",
    ),
    "nothing required": (MINIMAL.replace('"integrity.base"', "").encode(), "POLICY_EMPTY"),
    "unknown field": ((MINIMAL + "lenient = true").encode(), "POLICY_MALFORMED"),
    "unknown item": (MINIMAL.replace("integrity.base", "integrity.bass").encode(), "POLICY_MALFORMED"),
    "item twice": (
        MINIMAL.replace('"integrity.base"', '"integrity.base", "integrity.base"').encode(),
        "POLICY_MALFORMED",
    ),
    "another schema": (
        MINIMAL.replace("certify.policy", "certify.tickets").encode(),
        "POLICY_MALFORMED",
    ),
    "newer": (MINIMAL.replace("= 1", "= 2").encode(), "POLICY_MALFORMED"),
    "unknown claim": (with_claims('[[claim]]\nname = "beauty"\nabove = "0"'), "POLICY_MALFORMED"),
    "informational claim": (
        with_claims('[[claim]]\nname = "termination:base"\nabove = "0"'),
        "POLICY_MALFORMED",
    ),
    "no threshold": (with_claims(GAIN), "POLICY_MALFORMED"),
    "two thresholds": (with_claims(GAIN + 'above = "0"\nat_least = "1"'), "POLICY_MALFORMED"),
    "a float": (with_claims(GAIN + "above = 0.0"), "POLICY_MALFORMED"),
    "not a number": (with_claims(GAIN + 'above = "nan"'), "POLICY_MALFORMED"),
    "the wrong side": (with_claims(GAIN + 'at_most = "1"'), "POLICY_MALFORMED"),
    "a finding of a mean": (with_claims(GAIN + 'finding = "held"'), "POLICY_MALFORMED"),
    "claim twice": (with_claims(2 * (GAIN + 'above = "0"\n')), "POLICY_MALFORMED"),
    "no text at all": (with_claims(GAIN + 'above = "0"\ntexts = []'), "POLICY_MALFORMED"),
    "unknown assumption": (
        with_claims(GAIN + 'above = "0"', extra='accept = ["A-HOPE"]'),
        "POLICY_MALFORMED",
    ),
    "design as model": (with_claims(GAIN + 'above = "0"', extra='accept = ["A-UNITS"]'), "POLICY_MALFORMED"),
    "model as design": (with_claims(GAIN + 'above = "0"', extra='design = ["A-LAW"]'), "POLICY_MALFORMED"),
    "delta of one": (with_claims(GAIN + 'above = "0"', delta="1.0"), "POLICY_MALFORMED"),
    "no delta": (with_claims(GAIN + 'above = "0"').replace(b'delta = "0.05"', b""), "POLICY_INCOMPLETE"),
    "no basis": ((MINIMAL + 'delta = "0.05"\n' + GAIN + 'above = "0"').encode(), "POLICY_INCOMPLETE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_policy_is_read_strictly(name: str) -> None:
    data, code = REFUSED[name]
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(data)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_every_claim_can_be_required() -> None:
    for claim, tests in TESTS.items():
        for test in tests:
            how = f'finding = "{test}"' if claim.startswith("guarantee") else f'{test} = "0.5"'
            policy = parse_policy(with_claims(f'[[claim]]\nname = "{claim}"\n{how}'))
            (requirement,) = policy.claims
            assert (requirement.claim, requirement.test, requirement.declared) == (claim, test, False)
            assert requirement.item in policy.requires


def test_thresholds_are_exact_decimals() -> None:
    policy = parse_policy(with_claims(GAIN + 'above = "0.1"', extra='accept = ["A-UNTIED"]'))
    assert policy.claims[0].threshold == Fraction(1, 10)
    assert policy.taken == {"A-UNTIED"}


# --- the rules for one claim -------------------------------------------------------------------------------


def claim(kind: str = "gain", finding: Finding = Finding.MEASURED, **fields: object) -> Claim:
    given = {
        "code": "OWN_CODE",
        "text": "said",
        "n": 10,
        "estimate": Fraction(0),
        "assumptions": ("A-UNITS",),
    }
    return Claim(kind, "base", None, finding, **(given | fields))  # type: ignore[arg-type]


def ask(
    test: str,
    given: Claim,
    *,
    threshold: Fraction | None = None,
    opposite: Fraction | None = None,
    alpha: str = "0.05",
) -> tuple[Outcome, str]:
    name = "guarantee:published" if given.kind == "guarantee" else "gain:base:whole"
    requirement = Requirement(name, test, threshold)  # type: ignore[arg-type]
    answer = judge(requirement, given, alpha=alpha, taken=frozenset({"A-UNITS"}), opposite=lambda: opposite)
    return answer.outcome, answer.code


LIMITS = st.fractions(-2, 2, max_denominator=4)


@given(st.sampled_from(["at_least", "above"]), LIMITS, LIMITS, st.none() | LIMITS)
def test_lower_limits_against_thresholds(
    test: str, lower: Fraction, threshold: Fraction, opposite: Fraction | None
) -> None:
    outcome, _ = ask(test, claim(lower=lower), threshold=threshold, opposite=opposite)
    meets = lower >= threshold if test == "at_least" else lower > threshold
    false = opposite is not None and (opposite < threshold if test == "at_least" else opposite <= threshold)
    assert outcome is (Outcome.PASS if meets else Outcome.FAIL if false else Outcome.INCONCLUSIVE)


@given(st.sampled_from(["at_most", "below"]), LIMITS, LIMITS, st.none() | LIMITS)
def test_upper_limits_against_thresholds(
    test: str, upper: Fraction, threshold: Fraction, opposite: Fraction | None
) -> None:
    outcome, _ = ask(test, claim(upper=upper), threshold=threshold, opposite=opposite)
    meets = upper <= threshold if test == "at_most" else upper < threshold
    false = opposite is not None and (opposite > threshold if test == "at_most" else opposite >= threshold)
    assert outcome is (Outcome.PASS if meets else Outcome.FAIL if false else Outcome.INCONCLUSIVE)


@given(LIMITS, LIMITS, LIMITS)
def test_a_weaker_limit_never_passes_where_a_stronger_one_does_not(
    lower: Fraction, less: Fraction, threshold: Fraction
) -> None:
    stronger, weaker = max(lower, less), min(lower, less)
    passes = [
        ask("at_least", claim(lower=limit), threshold=threshold)[0] is Outcome.PASS
        for limit in (weaker, stronger)
    ]
    assert passes in ([False, False], [False, True], [True, True])


HELD = {
    Finding.HELD: (Outcome.PASS, Outcome.PASS),
    Finding.REFUTED: (Outcome.FAIL, Outcome.FAIL),
    Finding.PREMISE_FAILED: (Outcome.FAIL, Outcome.PASS),
    Finding.VACUOUS: (Outcome.VACUOUS, Outcome.PASS),
    Finding.INCONCLUSIVE: (Outcome.INCONCLUSIVE, Outcome.PASS),
    Finding.MISSING: (Outcome.MISSING, Outcome.MISSING),
    Finding.NOT_APPLICABLE: (Outcome.MISSING, Outcome.MISSING),
    Finding.VIOLATED: (Outcome.INVALID, Outcome.INVALID),
}


@pytest.mark.parametrize("finding", HELD)
def test_findings_of_a_guarantee(finding: Finding) -> None:
    given = claim("guarantee", finding)
    assert (ask("held", given)[0], ask("not refuted", given)[0]) == HELD[finding]
    passed = ask("held", given, alpha="0.5")[0] is Outcome.PASS
    assert not passed, "at a level above 0.1 a guarantee is descriptive"


def test_a_claim_that_is_vacuous_keeps_its_own_code() -> None:
    assert ask("above", claim(finding=Finding.VACUOUS), threshold=Fraction(0)) == (
        Outcome.VACUOUS,
        "OWN_CODE",
    )
    assert ask("above", claim(finding=Finding.MISSING), threshold=Fraction(0)) == (
        Outcome.MISSING,
        "OWN_CODE",
    )


@pytest.mark.parametrize(
    "given", [claim(lower=Fraction(1)), claim("guarantee", Finding.HELD), claim(finding=Finding.VACUOUS)]
)
def test_an_assumption_that_is_not_accepted_decides_nothing(given: Claim) -> None:
    from dataclasses import replace

    test = "held" if given.kind == "guarantee" else "above"
    for assumptions, denied in ((("A-UNITS", "A-BLOCKS"), True), (("A-UNITS",), False)):
        outcome, code = ask(test, replace(given, assumptions=assumptions), threshold=Fraction(0))
        assert (code == "ASSUMPTION_NOT_ACCEPTED") == denied
        assert (outcome is Outcome.INCONCLUSIVE) == denied


@pytest.mark.parametrize(
    ("lower", "estimate", "needed"),
    [
        (Fraction(-1), Fraction(1), (40, "11 or more")),
        (Fraction(-2), Fraction(1), (90, "15 or more")),
        (Fraction(-1), Fraction(3), (18, "11 to 160")),
    ],
)
def test_how_many_units_would_do(lower: Fraction, estimate: Fraction, needed: tuple[int, str]) -> None:
    # At 10 units the limit lies 2 (3, 4) below the estimate, which can be off by half of that. In the last
    # case the mean is then at least 1: the limit would lie as far below it at 10 (4/1)^2 units. With the
    # estimate right, at 10 (2/1)^2, 10 (3/1)^2 and 10 (4/3)^2.
    requirement = Requirement("gain:base:whole", "above", Fraction(0))
    given = claim(lower=lower, estimate=estimate)
    answer = judge(requirement, given, alpha="0.05", taken=frozenset({"A-UNITS"}), opposite=lambda: None)
    assert "about {} would if the estimate is right, {} as it can err".format(*needed) in answer.text
    given = claim(lower=lower, estimate=Fraction(0))
    answer = judge(requirement, given, alpha="0.05", taken=frozenset({"A-UNITS"}), opposite=lambda: None)
    assert "more units alone will not show it" in answer.text
