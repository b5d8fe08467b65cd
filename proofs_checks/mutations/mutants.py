"""Historic bugs: what to replace, where, by what (see :mod:`proofs_checks.mutations.mutations`).

Each is a mistake that was made in this field or would be easy to make, in words that say why it matters.
"""

from __future__ import annotations

from proofs_checks.mutations.mutant import Mutant
from proofs_checks.mutations.mutant import of as _of
from proofs_checks.mutations.mutants_evidence import EVIDENCE_MUTANTS
from proofs_checks.mutations.mutants_gate import GATE_MUTANTS

__all__ = ["MUTANTS", "Mutant"]

_THEOREM = _of(
    "certify.stats.theorem",
    (
        "published",
        "published-d",
        "tau for 2 tau",
        "exceeds_log(d * r * r / 4, 2 / alpha)",
        "exceeds_log(d * r * r, 2 / alpha)",
    ),
    ("published", "published-2alpha", "2 alpha for alpha", "2 / alpha)", "1 / alpha)"),
    ("published", "published-square", "a negative gap certifies, squared", "return r > 0 and ", "return "),
    ("measured_max", "max-d", "D for 2D", "Fraction(2 * _checked", "Fraction(_checked"),
    ("measured_max", "max-tie", ">= for >", "return r > ", "return r >= "),
    ("loss", "sum-max", "the largest deviation for the sum", "v * sum(h)", "v * max(h, default=0)"),
    ("loss", "sum-set", "equal counts of different rows count once", "v * sum(h)", "v * sum(set(h))"),
    ("loss", "sum-v", "V left out", "Fraction(v * sum(h), d)", "Fraction(2 * sum(h), d)"),
    ("additive", "additive-tie", ">= for >: a tie certifies", "d, v) > 0", "d, v) >= 0"),
    ("is_vacuous", "vacuous", "V sum D = 1 is not vacuous", "d, v) >= 1", "d, v) > 1"),
    ("above_tau", "premise", "the premise is tested at 2 alpha", "2 / alpha", "1 / alpha"),
    (
        "premise_holds",
        "premise-first",
        "only some rows are looked at",
        "_checked_max(h, d)",
        "min(h, default=0)",
    ),
    ("variation", "variation-min", "V of the easiest rival", "return max(", "return min("),
    ("_sign", "variation-two", "V = 2 for every three classes in a row", "-1 if label", "0 if label"),
    ("critical_margin", "margin-off", "the smallest margin is one too small", "return high", "return low"),
)
_STEPS = _of(
    "certify.evidence.distances",
    (
        "Distances.premise",
        "premise",
        "the premise is tested at half of alpha",
        "above_tau(count, self.d, alpha)",
        "above_tau(count, self.d, alpha / 2)",
    ),
    (
        "violation",
        "smallest",
        "the rows that moved least bear witness",
        "rows[:_SHOWN_ROWS]",
        "rows[-_SHOWN_ROWS:]",
    ),
    ("_steps", "prompt", "rows of the prompt do not count as fed", "= record.prompt", "= ()"),
    ("_steps", "generated", "generated tokens do not count as fed", "new = (token,)", "new = ()"),
    ("_steps", "repeated", "a token counts again each time it is fed", "if other not in fed:", "if True:"),
    ("Step.disagrees", "inverted", "agreement for disagreement", "!=", "=="),
)
_GUARANTEE = _of(
    "certify.claims.criteria",
    (
        "guarantee",
        "successes",
        "units without certified steps count as successes",
        "steps[drawn_index(unit, len(steps))].disagrees for unit, steps in certified.items()",
        "bool(steps) and steps[drawn_index(unit, len(steps))].disagrees for unit, steps in found.items()",
    ),
    (
        "guarantee",
        "pooled",
        "all certified steps count as independent draws",
        "_judge(drawn, level, delta, design)",
        "_judge([step.disagrees for one in certified.values() for step in one], level, delta, design)",
    ),
    ("drawn_index", "first", "the first certified step is drawn, always", "% certified", "% 1"),
    ("guarantee", "2alpha", "judged at 2 alpha", "_judge(drawn, level,", "_judge(drawn, 2 * level,"),
    ("guarantee", "premise", "the premise decides nothing", 'criterion != "published" or not above', "True"),
    ("_judge", "vacuous", "no certified step, no violation: held", "Finding.VACUOUS", "Finding.HELD"),
    ("drawn_index", "unit", "one place for every unit", "drawn:{unit}", "drawn"),
    (
        "_judge",
        "one-sided",
        "not refuted is taken for held",
        "rate_at_most(k, n, alpha, delta), rate_above",
        "not rate_above(k, n, alpha, delta), rate_above",
    ),
    ("_rule", "max-d", "D for 2D in measured-max", "2 * step.largest * UNIT", "step.largest * UNIT"),
    (
        "guarantee",
        "vacuous-tie",
        "V sum D = 1 is not counted as vacuous",
        "loss >= distances.d",
        "loss > distances.d",
    ),
    (
        "guarantee",
        "descriptive",
        "alpha = .1 is called descriptive",
        "level > DESCRIPTIVE",
        "level >= DESCRIPTIVE",
    ),
    (
        "_judge",
        "anytime-tie",
        "a sequential lower limit at alpha refutes",
        "lower.value > alpha",
        "lower.value >= alpha",
    ),
    (
        "_judge",
        "anytime-held",
        "a sequential upper limit at alpha is not enough",
        "upper.value <= alpha",
        "upper.value < alpha",
    ),
    (
        "_rule",
        "tie",
        ">= for > in the criterion of whole texts",
        "v * step.total * UNIT",
        "v * step.total * UNIT - 1",
    ),
)
_BOUNDS = _of(
    "certify.stats.rates",
    (
        "clopper_pearson",
        "two-sided",
        "one-sided limits for two-sided ones",
        "1 - _upper(n - successes, n, delta / 2), _upper(successes, n, delta / 2)",
        "1 - _upper(n - successes, n, delta), _upper(successes, n, delta)",
    ),
    (
        "_upper",
        "off-by-one",
        "fewer than k for at most k",
        "_tail_at_most(k, n, j",
        "_tail_at_most(k - 1, n, j",
    ),
    ("_tail_at_most", "tie", "< for <= at the tail", "<= delta.numerator", "< delta.numerator"),
    ("rate_above", "above-tie", "<= for < at the tail", "< delta.numerator", "<= delta.numerator"),
    (
        "binomial_tail_at_least",
        "strict",
        "more than k for at least k",
        "n - k, n, 1 - p",
        "n - k - 1, n, 1 - p",
    ),
)
_BETTING = _of(
    "certify.stats.betting",
    ("_goal", "2delta", "2 delta for delta", "// delta.numerator", "// (2 * delta.numerator)"),
    (
        "_bets",
        "peek",
        "a bet on a unit looks at that unit",
        "spread = i * squares - total * total",
        "spread = (i + 1) * (squares + unit * unit) - (total + unit) ** 2",
    ),
    ("_wealth", "peek-sign", "bets only where it wins", "(b * unit - unit_a)", "max(0, b * unit - unit_a)"),
    ("_wealth", "ruin", "more than everything can be bet", "4 * a * bet >= 3 * b << _BET_BITS", "False"),
    ("betting_upper", "mirror", "the lower limit for the upper one", "1 - mirrored.value", "mirrored.value"),
    (
        "noninferior",
        "sign",
        "the margin has the wrong sign",
        "Fraction(1, 2) - margin",
        "Fraction(1, 2) + margin",
    ),
    ("noninferior", "range", "a fixed range for the one that is given", "margin / scale", "margin / 200"),
    (
        "difference_lower",
        "scale",
        "the limit is not scaled back",
        "(limit.value - half) * scale",
        "(limit.value - half)",
    ),
)
_RESAMPLING = _of(
    "certify.stats.resampling",
    ("sign_flip", "ties", "> for >=: identical outputs look significant", ">= observed", "> observed"),
    (
        "sign_flip",
        "plus-one",
        "p-value 0 is possible",
        "Fraction(1 + extreme, 1 + draws)",
        "Fraction(extreme, draws)",
    ),
    (
        "sign_flip",
        "halves",
        "only half of the signs are flipped",
        "2 * generator.integers(0, 2,",
        "2 * generator.integers(1, 2,",
    ),
    ("swap_p_value", "ties", "> for >=", "(difference >= observed) | tie", "difference > observed"),
    (
        "swap_sums",
        "together",
        "all units are exchanged together, as if they were one",
        "size=(rows, n), dtype=np.int8)",
        "size=(rows, 1), dtype=np.int8).repeat(n, axis=1)",
    ),
    ("_generator", "seed", "seed 0 is ignored", "PCG64(seed)", "PCG64(seed or None)"),
    (
        "bootstrap_limit",
        "2delta",
        "2 delta for delta",
        "int(delta * (draws + 1))",
        "int(2 * delta * (draws + 1))",
    ),
    (
        "paired_bootstrap",
        "unpaired",
        "systems are resampled apart",
        "sums[:, width:])",
        "sums[::-1, width:])",
    ),
    (
        "cluster_rate",
        "steps",
        "clusters are ignored: the variance of independent steps",
        "(y - rate * m) ** 2 for",
        "y * (1 - rate) ** 2 + (m - y) * rate**2 for",
    ),
    ("cluster_rate", "side", "two sides share one", "1 - delta", "1 - 2 * delta"),
)
_BUDGET = _of(
    "certify.stats.budget",
    ("fixed_sequence", "goes-on", "testing goes on after a failure", "break", "continue"),
)
_POWER = _of(
    "certify.stats.power",
    ("clean_units_needed", "one-less", "one unit too few", "return first", "return first - 1"),
    ("units_for_rate", "mirror", "a rate for its complement", "1 - alpha, 1 - truth", "alpha, 1 - truth"),
    ("units_for_mean", "spread", "no allowance for chance", "quantile * math.sqrt(n)", "0 * math.sqrt(n)"),
)
_EXACTMATH = _of(
    "certify.base.exact",
    (
        "round_down",
        "nearest",
        "rounded to nearest",
        "(x.numerator << bits) // x.denominator",
        "round(x * (1 << bits))",
    ),
    (
        "round_up",
        "floor",
        "rounded down",
        "-((-x.numerator << bits) // x.denominator)",
        "(x.numerator << bits) // x.denominator",
    ),
    ("sqrt_up", "floor", "a root rounded down", "root + (root * root < ceiling)", "root"),
    ("_twice_atanh", "inward", "a lower bound rounded up", "return low >> 16,", "return (low >> 16) + 1,"),
    ("exceeds_log", "middle", "decided by one side of the enclosure", "if value > high:", "if value > low:"),
)
_VERDICT = _of(
    "certify.base.verdict",
    ("decide", "absent", "evidence that is missing passes", "else Outcome.MISSING", "else Outcome.PASS"),
    ("", "not-run", "a check that did not run passes", "    (Outcome.NOT_RUN, Status.INCONCLUSIVE),\n", ""),
    (
        "",
        "vacuous",
        "a vacuous ticket opens the gate",
        "Status.VACUOUS: ExitCode.INCONCLUSIVE",
        "Status.VACUOUS: ExitCode.CERTIFIED",
    ),
)
_SCHEMA = _of(
    "certify.base.jsonio",
    ("parse_json", "nan", "NaN is a number", "parse_constant=_no_constant, ", ""),
    (
        "parse_json",
        "duplicates",
        "of two equal keys the last one wins",
        "object_pairs_hook=_no_duplicates, ",
        "",
    ),
)
_SMIRNOV = _of(
    "certify.scan.smirnov",
    (
        "_tail_numerators",
        "one-sided",
        "one-sided for two-sided",
        "numerators.append(2 * (",
        "numerators.append((",
    ),
    (
        "_tail_numerators",
        "first-term",
        "the series ends after one term",
        " - sum(binomials[2 * h :: 2 * h])",
        "",
    ),
    (
        "p_values",
        "asymptotic",
        "asymptotic, labelled exact",
        "return _exact_table(n)",
        "return _asymptotic_table(n)",
    ),
    (
        "_ratio_upward",
        "nearest",
        "rounded to nearest",
        "math.ldexp(-(-scaled >> excess), excess - shift)",
        "numerator / denominator",
    ),
    ("rejects", "tie", "p < alpha for p <= alpha", "<= level.numerator", "< level.numerator"),
    ("rejects", "2alpha", "2 alpha for alpha in the asymptotic law", "2 / level", "1 / level"),
    ("threshold", "tau", "tau at 2 alpha", "math.log(2 * level.denominator)", "math.log(level.denominator)"),
)
_MULTIPLICITY = _of(
    "certify.scan.multiplicity",
    ("_holm", "holm", "Holm off by one", "h.size - above)", "max(1, h.size - above - 1))"),
    ("_holm", "holm-on", "Holm goes on after a failure", "            break\n", "            continue\n"),
    (
        "rejected",
        "bonferroni",
        "no correction under the name of one",
        "critical_count(level / h.size,",
        "critical_count(level,",
    ),
    (
        "rejected",
        "bonferroni-law",
        "Bonferroni by the exact law, labelled asymptotic",
        "critical_count(level / h.size, n, method)",
        "critical_count(level / h.size, n)",
    ),
    (
        "_benjamini_yekutieli",
        "by-law",
        "BY by the exact law, labelled asymptotic",
        "m = h.size",
        'm, method = h.size, "exact"',
    ),
    (
        "_holm",
        "holm-law",
        "Holm by the exact law, labelled asymptotic",
        "(h.size - above), method)",
        "(h.size - above))",
    ),
    (
        "_step_up",
        "bh-law",
        "BH by the exact law, labelled asymptotic",
        "reached / h.size, method)",
        "reached / h.size)",
    ),
    ("rejected", "strict", "> for >= at the critical count", "= h >= smallest", "= h > smallest"),
    ("_step_up", "bh", "Benjamini and Hochberg off by one", "level * reached /", "level * (reached + 1) /"),
    (
        "_benjamini_yekutieli",
        "by",
        "no harmonic number",
        "sum(scale // i for i in range(1, m + 1))",
        "scale - m",
    ),
)
_ENGINE = _of(
    "certify.scan.engine_numpy",
    (
        "_distance",
        "ties",
        "a tie is compared before both CDFs advanced",
        "    path[:, :-1] *= run_ends\n",
        "",
    ),
    (
        "_distance",
        "axis",
        "CDFs run over rows, not along them",
        "np.cumsum(steps, axis=1",
        "np.cumsum(steps, axis=0",
    ),
    (
        "_distance",
        "sides",
        "one-sided for two-sided",
        "np.abs(path, out=path).max(axis=1)",
        "path.max(axis=1)",
    ),
    (
        "_compare_moved",
        "nan",
        "a NaN after tuning passes",
        "out.finite[rows] & np.all(finite_mask(y, dtype), axis=1)",
        "out.finite[rows]",
    ),
    (
        "compare",
        "nan-base",
        "a NaN before tuning passes",
        "np.all(finite_mask(x, dtype), axis=1, out=out.finite)",
        "out.finite[:] = True",
    ),
)
_SCAN = _of(
    "certify.scan.scan",
    ("scan", "nan", "rows with NaN pass", "if not block.finite.all():", "if False:"),
    ("scan", "label", "asymptotic, labelled exact", "method=method,", 'method="exact",'),
    (
        "scan",
        "permuted",
        "a permuted row is not told from an equal one",
        "columns.max_abs > 0",
        "columns.max_abs < 0",
    ),
)
_DTYPES = _of(
    "certify.tables.dtypes",
    (
        "_round_to_bf16",
        "truncate",
        "bf16 by cutting off",
        "(bits + np.uint32(0x7FFF) + last) >> np.uint32(16)",
        "bits >> np.uint32(16)",
    ),
    (
        "_round_to_bf16",
        "ties",
        "ties away from zero for ties to even",
        "np.uint32(0x7FFF) + last",
        "np.uint32(0x8000)",
    ),
    ("ordered_keys", "zero", "-0 lies below +0", "(magnitude ^ negative) - negative", "magnitude ^ negative"),
    ("finite_mask", "infinity", "infinity passes for a number", ") != exponent", ") >= 0"),
)
_SELECTION = _of(
    "certify.selection.rules",
    (
        "select",
        "seed",
        "seed 0 is ignored",
        "ids = _random(seed, ",
        "ids = _random(seed or 1, ",
    ),
    (
        "select",
        "tests",
        "excluded rows count as tests",
        "rejected(result.h[candidates], result.n, level, correction, result.method)",
        "rejected(result.h, result.n, level, correction, result.method)[candidates]",
    ),
    (
        "select",
        "label",
        "asymptotic, labelled exact",
        "correction, result.method)\n",
        'correction, "asymptotic")\n',
    ),
    (
        "_top",
        "smallest",
        "the smallest shifts for the largest",
        "np.argsort(-score[ids]",
        "np.argsort(score[ids]",
    ),
    ("_available", "specials", "special tokens are selected", "available[list(group.ids)] = False", "pass"),
)
_TRANSFER = _of(
    "certify.ticket.transfer",
    (
        "transferred_blocks",
        "mask",
        "the transfer mask is inverted",
        "block[rows.ids[first:last] - start] = rows.served[first:last]",
        "block[np.isin(np.arange(len(block)) + start, rows.ids, invert=True)] = rows.served[:1]",
    ),
    (
        "transferred_blocks",
        "offset",
        "each row goes to its neighbour",
        "rows.ids[first:last] - start",
        "rows.ids[first:last] - start - 1",
    ),
    ("transferred_blocks", "map", "the base itself is written to", "np.array(rows_of_base)", "rows_of_base"),
)
_CLAIMS = _of(
    "certify.claims.exact",
    (
        "_run",
        "generated",
        "rows of generated tokens cannot act",
        "{*record.prompt, *generated[:-1]}",
        "{*record.prompt}",
    ),
)
_QUALITY = _of(
    "certify.claims.quality",
    (
        "sentence_chrf",
        "beta",
        "F1 for F2",
        "Fraction(500 * p * q, k * (4 * p * r + q * h))",
        "Fraction(200 * p * q, k * (p * r + q * h))",
    ),
    (
        "sentence_chrf",
        "orders",
        "orders without n-grams count as zero",
        "Fraction(500 * p * q, k *",
        "Fraction(500 * p * q, 8 *",
    ),
    ("unit_scores", "rule", "the extraction rule is ignored", "RULES.index(rule)", "0"),
    (
        "better_than_nulls",
        "best",
        "the weakest null ticket is the one to beat",
        "least = min(",
        "least = max(",
    ),
    ("non_inferiority", "best", "the easiest of several comparators counts", "least = min(", "least = max("),
)
_CORPUS = _of(
    "certify.evidence.corpus_scores",
    (
        "corpus_bleu",
        "smoothing",
        "every order without a match is smoothed alike",
        "np.cumsum(empty, axis=1)",
        "1",
    ),
    ("corpus_bleu", "brevity", "short outputs cost nothing", "np.exp(penalty + ", "np.exp(0 * penalty + "),
    ("corpus_bleu", "reward", "long outputs are rewarded", "np.minimum(0.0, ", "np.add(0.0, "),
    ("corpus_bleu", "no-match", "outputs without a match score", "~empty.all(axis=1) & ", ""),
    ("corpus_chrf", "beta", "F1 for F2", "_BETA2 * precision + recall", "precision + recall"),
    (
        "corpus_chrf",
        "orders",
        "orders without n-grams count as zero",
        "counted.sum(axis=1)",
        "8 + 0 * counted[:, 0]",
    ),
    (
        "_by_unit",
        "units",
        "sentences are drawn, not units",
        "np.add.reduceat(counts, starts, axis=0)",
        "counts",
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *(*_THEOREM, *_STEPS, *_GUARANTEE),
    *(*_BOUNDS, *_BETTING, *_RESAMPLING, *_BUDGET, *_POWER, *_EXACTMATH),
    *(*_VERDICT, *_SCHEMA, *_CLAIMS, *_QUALITY, *_CORPUS),
    *(*EVIDENCE_MUTANTS, *GATE_MUTANTS),
    *(*_SMIRNOV, *_MULTIPLICITY, *_ENGINE, *_SCAN, *_DTYPES, *_SELECTION, *_TRANSFER),
)
"""All of them, grouped by module."""
