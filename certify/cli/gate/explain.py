"""``certify explain``: the meaning of a reason code, an assumption, a kind of claim, a policy or a word."""

from __future__ import annotations

from typing import Annotated

import typer


def _names() -> list[str]:
    from certify.policy.codes import names

    return [name for topic in names().values() for name in topic]


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Any name that a report or an exit prints; default: list all.",
            autocompletion=_names,
        ),
    ] = None,
) -> None:
    """Explain a name in a report, such as a reason code, an item, a claim or an exit code."""
    from certify.cli.shell import emit
    from certify.policy.codes import codes, names
    from certify.policy.codes import explain as run_explain

    if name is not None:
        emit("\n".join(run_explain(name)) + "\n", None)
        return
    known = codes()
    lines = []
    for topic, entries in names().items():
        lines.append(f"{topic}:")
        lines += [
            f"  {entry}: {known[entry].meaning}" if entry in known else f"  {entry}" for entry in entries
        ]
    emit("\n".join(lines) + "\n", None)
