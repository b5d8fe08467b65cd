"""``certify card``: what a certificate states, as part of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify.cli.registry import RENDERERS, load
from certify.cli.use import interop

if TYPE_CHECKING:
    from certify.certificate.schema import Certificate

_LARGEST = 16 << 20


def card(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE[#ID]", help="Certificate, or ticket file with a ticket that names one."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="README.md", help="Card to put it into; the rest stays as it is."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="README.md", help="Card to compare with the certificate instead."),
    ] = None,
) -> int:
    """Write what a certificate states into a model card, as a section and as model-index.

    Everything comes from the certificate; only certify check says whether it
    holds. With --check, the exit code is 0 if the card says the same, 1 if it
    says something else (the first difference is shown) and 4 if it is malformed.
    """
    from certify.base.errors import UsageError
    from certify.base.files import check_output
    from certify.base.jsonio import write_bytes
    from certify.cli.shell import emit

    if out is not None and check is not None:
        raise UsageError("--out and --check do not combine", code="USAGE")
    stated = _certificate(file)
    renderer = load(RENDERERS["card"])
    if check is not None:
        found = renderer.difference(_read(check), *stated)
        interop.show([f"{check}: {found or 'says what the certificate states'}"], {}, "terminal")
        return int(found is not None)
    if out is None:
        emit(renderer.put("", *stated), None)
        return 0
    check_output(out)
    text = renderer.put(_read(out) if out.exists() else "", *stated)
    write_bytes(out, text.encode("utf-8"))
    interop.show([f"wrote {out}"], {}, "terminal", "certify", "card", "--check", out, file)
    return 0


def _read(path: Path) -> str:
    from certify.base.errors import InvalidInputError
    from certify.base.jsonio import read_bytes

    try:
        return read_bytes(path, what="model card", limit=_LARGEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the card {path} is not UTF-8", code="CARD_MALFORMED") from error


def _certificate(spec: str) -> tuple[Certificate, str]:
    """The certificate named by ``spec``, or by the ticket that ``spec`` names, and its file digest."""
    from certify.base.errors import InvalidInputError
    from certify.base.jsonio import MAX_JSON_BYTES, read_bytes, sha256_bytes, states
    from certify.certificate.schema import SCHEMA_NAME, SCHEMA_VERSION, read_certificate
    from certify.gate.examination import bound_certificate
    from certify.ticket.released import open_source, split_spec

    path, name = split_spec(spec)
    if states("schema", SCHEMA_NAME)(read_bytes(path, what="file", limit=MAX_JSON_BYTES)):
        certificate, data, version = read_certificate(path)
        sha256 = sha256_bytes(data)
        if name not in ("", certificate.ticket.id):
            raise InvalidInputError(
                f"{path} is about another ticket: {certificate.ticket.id}", code="CERTIFICATE_OTHER_TICKET"
            )
    else:
        source = open_source(spec)
        certificate, sha256, version = bound_certificate(source.ticket, source.folder)
    if version < SCHEMA_VERSION:
        raise InvalidInputError(
            f"the certificate has schema version {version}: its limits do not pay for the choice of a ticket",
            code="CERTIFICATE_OLDER",
        )
    return certificate, sha256
