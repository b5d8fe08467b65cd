"""Plots of a scan: distance against frequency, p by rank, relative shift against distance."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certify.base.records import KSResult
from certify.gate.recheck import FAR, STILL
from certify.ticket.schema import SelectionRef
from reports.html.cloud import binned
from reports.html.figure import figure, left_out, many
from reports.html.markup import Markup, tag
from reports.html.material import Material
from reports.html.svg import Axes, Scale, counting, linear, power, powers, short

_MARKED = 400
_FINE = 400
_LISTED = 40

_TICKET = ("ticket", "row of the ticket")
_OTHER = ("row", "any other row (darker: more rows)")


def frequency(given: Material) -> Markup:
    """Distance D against how often a row is fed, with the published threshold."""
    name = "Distance against frequency"
    result, ticket = given.one.result, given.one.ticket
    if result is None:
        return left_out(name, given.without_tables)
    if given.frequency is None:
        return left_out(name, "no token counts are bound and no text was evaluated.")
    fed, label, source = given.frequency
    distance = result.h / result.n
    tau = ticket.selection.tau
    x, y = counting(float(fed.max())), linear([0, tau, float(distance.max())])
    plot = Axes(x, y, label, "distance D")
    cloud = _cloud(given, plot, "frequency", (source,), (x, fed), (y, distance))
    plot.across(tau, f"τ = {tau:.4f}", place=0.7)
    ids = _strongest(result, ticket.ids)
    _mark(given, plot, ids, fed, distance)
    above = int(np.count_nonzero(distance > tau))
    kept = int(np.count_nonzero(distance[list(ticket.ids)] > tau))
    title = f"{many(above, 'row')} of {short(result.rows)} moved further than τ"
    title += f"; the ticket holds {short(kept)} of them"
    read = (
        "Each point is a row of the table: how often it is fed, and how far tuning moved its values (D, the"
        " Kolmogorov-Smirnov distance of the row before and after). The published theorem needs every point"
        " outside the ticket to lie on or below τ."
    )
    return figure(
        f"{given.key}-frequency",
        title,
        plot,
        read + _only(ids, ticket.ids),
        ("id", "piece", "fed", "D"),
        ((i, _piece(given, i), int(fed[i]), float(distance[i])) for i in _listed(result, ticket.ids)),
        [_TICKET, _OTHER],
        cloud,
    )


def ranks(given: Material) -> Markup:
    """The p-values of the tested rows in ascending order, with the level that a row must reach."""
    result, ticket = given.one.result, given.one.ticket
    if result is None:
        return left_out("p by rank", given.without_tables)
    chosen = ticket.selection
    tested = np.ones(result.rows, dtype=bool)
    for group in chosen.groups:
        tested[list(group.ids)] = False
    order = np.flatnonzero(tested)
    order = order[np.argsort(result.log10_p[order], kind="stable")]
    if not order.size:
        return left_out("p by rank", "no row was tested.")
    height = -result.log10_p[order]
    asked = -_levels(chosen, order.size)
    top = max(float(height.max()), float(asked.max()), 1.0)
    x, y = powers(0, float(np.log10(max(10, order.size)))), powers(-0.02 * top, top * 1.05)
    y = Scale(y.low, y.high, tuple((v, power(-int(v))) for v, _ in y.ticks))
    plot = Axes(x, y, "rank of the row", "p-value (smaller is higher)")
    at = np.log10(np.arange(1, order.size + 1))
    plot.line([(0.0, float(at[-1])), (float(at[-1]), 0.0)], "chance")
    plot.line([(float(at[i]), float(height[i])) for i in _thin((x, at), (y, height))], "curve")
    plot.line([(float(at[i]), float(asked[i])) for i in _thin((x, at), (y, asked))], "level")
    place = {int(token): i for i, token in enumerate(order)}
    ids = [i for i in _strongest(result, ticket.ids) if i in place]
    rank = np.zeros(result.rows)
    rank[order] = at
    _mark(given, plot, ids, rank, -result.log10_p)
    passing = order[result.h[order] >= chosen.h_alpha]
    title = f"{short(passing.size)} of {short(order.size)} tested rows reach α = {chosen.alpha} by themselves"
    title += f"; the ticket holds {short(np.isin(passing, ticket.ids).sum())} of them"
    read = (
        "Tested rows from the smallest p-value on, both axes logarithmic. The dashed line is what"
        " independent rows that did not move would give on average; the red line is the level that a row"
        " must reach. Rows before and after are not independent samples: read p as a score."
    )
    listed = [i for i in _listed(result, ticket.ids) if i in place]
    return figure(
        f"{given.key}-ranks",
        title,
        plot,
        read + _only(ids, ticket.ids),
        ("id", "piece", "rank", "log10 p"),
        ((i, _piece(given, i), place[i] + 1, float(result.log10_p[i])) for i in listed),
        [_TICKET, ("level", "asked level"), ("chance", "if no row had moved")],
    )


def shifts(given: Material) -> Markup:
    """Relative shift against distance: what moved far although its values hardly did is a blind spot."""
    name = "Relative shift against distance"
    result, ticket, norms = given.one.result, given.one.ticket, given.norms
    if result is None or norms is None:
        return left_out(name, given.without_tables)
    some = norms > 0
    if not some.any():
        return left_out(name, "every row of the base is zero.")
    relative = np.divide(result.shift_norm, norms, out=np.zeros_like(norms), where=some)
    distance = result.h / result.n
    most = max(float(relative.max()), 1.2 * FAR)
    x, y = linear([0, float(distance.max()), 2 / STILL]), linear([0, most], percent=True)
    plot = Axes(x, y, "distance D", "shift, in % of the row's norm")
    cloud = _cloud(given, plot, "shift", (), (x, distance), (y, relative))
    plot.area([(0.0, FAR, most), (1 / STILL, FAR, most)], "blind")
    plot.down(ticket.selection.tau, "τ", low=True)
    ids = _strongest(result, ticket.ids)
    _mark(given, plot, ids, distance, relative)
    spots = sorted({i for item in given.one.items if item.name.startswith("blind-spots.") for i in item.ids})
    for i in spots[:_MARKED]:
        plot.dot(float(distance[i]), float(relative[i]), "blind", f"{_piece(given, i)} (id {i}): left out")
    what = (
        "no row outside the ticket hides"
        if not spots
        else f"{many(len(spots), 'row')} outside the ticket hide"
    )
    title = f"{what} in a blind spot of the test"
    read = (
        "The test compares the values of a row without their order: a row whose entries changed places can"
        f" move far at a small D (shaded: D at most 1/{STILL}, moved by half its norm or more). A row that"
        " turned round (cosine below 0.2) is a blind spot, too. Crosses are such rows that the ticket"
        " leaves out."
    )
    listed = dict.fromkeys([*spots[:_LISTED], *_listed(result, ticket.ids)])
    return figure(
        f"{given.key}-shift",
        title[0].upper() + title[1:],
        plot,
        read + _only(ids, ticket.ids),
        ("id", "piece", "D", "relative shift", "cosine"),
        (
            (i, _piece(given, i), float(distance[i]), float(relative[i]), float(result.cosine[i]))
            for i in listed
        ),
        [_TICKET, _OTHER, ("blind", "left out, in a blind spot")],
        cloud,
    )


def _cloud(
    given: Material,
    plot: Axes,
    name: str,
    parts: tuple[str, ...],
    across: tuple[Scale, NDArray[np.float64]],
    up: tuple[Scale, NDArray[np.float64]],
) -> str:
    """Put the cloud of all rows beneath a plot; tickets of the same tables share one. Returns its id."""
    ticket = given.one.ticket
    scales = (f"{scale.low}:{scale.high}" for scale, _ in (across, up))
    told = "|".join((ticket.base.tensor_sha256, ticket.reference.tensor_sha256, *parts, *scales))
    key = f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    if key not in given.sheet.definitions:
        x, y = (_places(scale, values) for scale, values in (across, up))
        given.sheet.definitions[key] = binned(key, plot, x, y)
    plot.put(tag("use", href=f"#{key}", class_="cloud-use"))
    return key


def _places(scale: Scale, values: NDArray[np.float64]) -> NDArray[np.float64]:
    distinct, back = np.unique(values, return_inverse=True)
    return np.array([scale.at(value) for value in distinct.tolist()])[back]


def _mark(
    given: Material, plot: Axes, ids: list[int], x: NDArray[np.float64], y: NDArray[np.float64]
) -> None:
    """Mark rows; of those that fall on one another the first."""
    seen = set()
    for i in ids:
        place = round(plot.x(float(x[i])) / 2), round(plot.y(float(y[i])) / 2)
        if place not in seen:
            plot.dot(float(x[i]), float(y[i]), "ticket", f"{_piece(given, i)} (id {i})")
        seen.add(place)


def _strongest(result: KSResult, ids: tuple[int, ...]) -> list[int]:
    return sorted(ids, key=lambda i: (-int(result.h[i]), i))[:_MARKED]


def _only(ids: list[int], every: tuple[int, ...]) -> str:
    return "" if len(ids) == len(every) else f" Of the ticket's {len(every)} rows {len(ids)} are marked."


def _listed(result: KSResult, ids: tuple[int, ...]) -> list[int]:
    """The ticket's rows and those that moved furthest outside it, strongest first."""
    outside = np.setdiff1d(np.argsort(-result.h, kind="stable")[: _LISTED + len(ids)], ids)
    outside = outside[np.argsort(-result.h[outside], kind="stable")][:10]
    return [*_strongest(result, ids)[:_LISTED], *outside.tolist()]


def _piece(given: Material, i: int) -> str:
    return given.pieces.get(i, "")


def _levels(chosen: SelectionRef, tests: int) -> NDArray[np.float64]:
    """By rank, the base-10 logarithm of the p-value that the correction asks for."""
    rank = np.arange(1, tests + 1)
    alpha = float(Fraction(chosen.alpha))
    factor = {
        "none": np.ones(tests),
        "bonferroni": np.full(tests, 1 / tests),
        "holm": 1 / (tests + 1 - rank),
        "bh": rank / tests,
        "by": rank / (tests * np.sum(1 / rank)),
    }[chosen.correction]
    return np.log10(alpha * factor)


def _thin(x: tuple[Scale, NDArray[np.float64]], y: tuple[Scale, NDArray[np.float64]]) -> list[int]:
    """Points of a curve that differ in the drawing, the first and the last among them."""
    moved = np.zeros(x[1].size, dtype=bool)
    for scale, values in (x, y):
        moved[1:] |= np.diff(np.rint((values - scale.low) / (scale.high - scale.low) * _FINE)) != 0
    moved[[0, -1]] = True
    return np.flatnonzero(moved).tolist()
