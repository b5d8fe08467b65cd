"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

DeviceName = Literal["auto", "cpu", "cuda"]
ParallelText = Annotated[str, typer.Option(help="Parallel text, in any form that certify tune accepts.")]
SourceLanguage = Annotated[str, typer.Option(help="Source language, such as en.")]
TargetLanguage = Annotated[str, typer.Option(help="Target language, such as ca.")]
PromptTemplate = Annotated[str, typer.Option(help="Prompt template: a shipped name or a .toml file.")]
SentenceLimit = Annotated[
    int | None, typer.Option(min=1, help="Draw at most this many of the sentences, by their digests.")
]
