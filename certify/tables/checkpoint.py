"""Find the input embedding table of a checkpoint, and whether the output head shares it.

Reads config.json, the index and safetensors headers, but no tensors. The file that a loader would take, the
tensor that is the table, and whether it is tied are never guessed: an ambiguous checkpoint is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import JsonReader, read_json
from certify.tables.modelconfig import KNOWN_NAMES, Architecture, read_config
from certify.tables.safefile import MappedFile, TensorInfo, is_file, map_file, quote, read_header

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_LISTED = 6


@dataclass(frozen=True, slots=True)
class Location:
    """Location of a table in its checkpoint.

    Attributes:
        file: the safetensors file with the table, opened.
        tensor: its name in that file.
        tied: whether the output head shares it; None if unknown.
        files: every file that determined this, ``file`` last.
    """

    file: MappedFile
    tensor: str
    tied: bool | None
    files: tuple[Path, ...]

    @property
    def info(self) -> TensorInfo:
        """Verified description of the table."""
        return self.file.header[self.tensor]


def locate(place: Path | MappedFile, tensor: str | None, read: JsonReader = read_json) -> Location:
    """Find the input embedding table of an opened safetensors file or of a checkpoint folder.

    In a file, it is the requested tensor, the only known embedding table, or the only two-dimensional tensor.
    A folder must contain config.json and either ``model.safetensors`` or an index of shards. A folder with
    both is refused if the index names other files, because loaders disagree about which to take. A
    config.json beside a single file is read as well, for a tied head or quantised weights.

    ``tie_word_embeddings`` determines whether the table is tied. Without it, the default of the architecture
    does, and a whole model without an output head counts as tied.

    Args:
        place: the file or folder.
        tensor: name of the table; None to find it.
        read: reads config.json and the index.

    Raises:
        UsageError: a required file does not exist (``FILE_UNREADABLE``, ``CHECKPOINT_MISSING``), the table
            cannot be determined (``TENSOR_AMBIGUOUS``), or ``tensor`` is missing (``TENSOR_MISSING``).
        InvalidInputError: the checkpoint is corrupt, contradictory, pickled or quantised; codes
            ``CHECKPOINT_AMBIGUOUS``, ``CONFIG_MALFORMED``, ``CONFIG_MISMATCH``, ``HEAD_MISSING``,
            ``INDEX_MALFORMED``, ``INDEX_UNSAFE``, ``PICKLE_REFUSED``, ``QUANTISED_TABLE``, ``SHARD_MISSING``,
            ``TENSOR_MISSING``, and those of :func:`certify.tables.safefile.read_header`.
    """
    return _in_folder(place, tensor, read) if isinstance(place, Path) else _in_file(place, tensor, read)


def _in_file(file: MappedFile, tensor: str | None, read: JsonReader) -> Location:
    path, header = file.path, file.header
    config_path = path.parent / CONFIG
    config = read_config(config_path, read) if is_file(config_path) else None
    name = _choose(header, {n for n, i in header.items() if len(i.shape) == 2}, tensor, path)
    _refuse_companions(name, header, path)
    tied = None if config is None else config.tied(header if path.name == SINGLE else None)
    files = (path,) if config is None else (config_path, path)
    return Location(file, name, tied, files)


def _in_folder(folder: Path, tensor: str | None, read: JsonReader) -> Location:
    single, index, config_path = folder / SINGLE, folder / INDEX, folder / CONFIG
    shards = read_index(index, read) if is_file(index) else None
    if shards is None and not is_file(single):
        raise _no_checkpoint(folder)
    if not is_file(config_path):
        raise UsageError(
            f"{folder} has no {CONFIG}: name the .safetensors file itself if this is not a checkpoint",
            code="CHECKPOINT_MISSING",
        )
    config = read_config(config_path, read)
    if shards is not None and is_file(single) and set(shards.values()) != {SINGLE}:
        raise InvalidInputError(
            f"{folder} has both {SINGLE} and an index of other files, and loaders disagree about which to"
            " take: remove one",
            code="CHECKPOINT_AMBIGUOUS",
        )
    whole = map_file(single) if shards is None else None
    names: Collection[str] = (shards or {}) if whole is None else whole.header
    candidates = set() if whole is None else {n for n, i in whole.header.items() if len(i.shape) == 2}
    name = _choose(names, candidates, tensor, folder, config.architecture)
    _refuse_companions(name, names, folder)
    file = whole or _in_shards(folder, shards or {}, name)
    if config.architecture is None or name in config.architecture.names:
        config.check_shape(table_shape(file.header[name].shape, file.path))
    files = (config_path, file.path) if shards is None else (config_path, index, file.path)
    return Location(file, name, config.tied(names), files)


def _in_shards(folder: Path, shards: Mapping[str, str], name: str) -> MappedFile:
    """The shard that the index names, if ``name`` is there and in no other shard that is present."""
    found: MappedFile | None = None
    for shard in sorted(set(shards.values())):
        file = folder / shard
        expected = shard == shards[name]
        # Shards with other tensors may be missing: only the table is read.
        if not is_file(file):
            if expected:
                raise InvalidInputError(
                    f"{folder}: the index puts {quote(name)} into {quote(shard)}, which is missing",
                    code="SHARD_MISSING",
                )
            continue
        opened = map_file(file) if expected else None
        present = name in (read_header(file) if opened is None else opened.header)
        if expected and not present:
            raise InvalidInputError(
                f"{file} lacks {quote(name)}, which the index puts there", code="TENSOR_MISSING"
            )
        if not expected and present:
            raise InvalidInputError(
                f"{folder}: {quote(name)} is also in {quote(shard)}, not only where the index puts it",
                code="CHECKPOINT_AMBIGUOUS",
            )
        found = opened or found
    assert found is not None
    return found


def _choose(
    names: Collection[str],
    tables: Collection[str],
    tensor: str | None,
    path: Path,
    architecture: Architecture | None = None,
) -> str:
    """Choose the name of the table among ``names``, of which ``tables`` are known to be two-dimensional."""
    if tensor is not None:
        if tensor in names:
            return tensor
        _refuse_packed((tensor,), names, path)
        raise UsageError(
            f"{path} has no tensor {quote(tensor)}; found {_listed(tables or names)}",
            code="TENSOR_MISSING",
        )
    wanted = KNOWN_NAMES if architecture is None else architecture.names
    known = [name for name in wanted if name in names]
    if len(known) == 1:
        return known[0]
    _refuse_packed(wanted, names, path)
    if architecture is not None and not known:
        raise InvalidInputError(
            f"{path} has no embedding table {quote(wanted[0])}; found {_listed(tables or names)}:"
            " name the table with --tensor",
            code="TENSOR_MISSING",
        )
    if not known and len(tables) == 1:
        return next(iter(tables))
    raise UsageError(
        f"the embedding table of {path} cannot be determined: name it with --tensor; found"
        f" {_listed(known or tables or names)}",
        code="TENSOR_AMBIGUOUS",
    )


def _refuse_packed(wanted: Iterable[str], names: Collection[str], path: Path) -> None:
    """Report "quantised" rather than "missing" if the table's module exists in packed form."""
    for name in wanted:
        if any(f"{name.removesuffix('weight')}{part}" in names for part in ("qweight", "weight_packed")):
            raise _quantised(path, f"{quote(name)} is packed")


def _refuse_companions(table: str, names: Collection[str], path: Path) -> None:
    """Refuse scales, packing states and adapters beside the table, which change what is served."""
    if not table.endswith(".weight"):
        return
    stem = table.removesuffix("weight")
    companions = sorted(name for name in names if name.startswith(stem) and name != table)
    if companions:
        raise _quantised(path, f"{quote(table)} comes with {_listed(companions)}")


def _quantised(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: the table is quantised or wrapped ({what}); only plain F32, F16 and BF16 tables can be"
        " compared",
        code="QUANTISED_TABLE",
    )


def table_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int]:
    """Check that ``shape`` is that of a table and return it.

    Raises:
        InvalidInputError: it is not two-dimensional (``NOT_A_TABLE``) or has no entries (``TABLE_EMPTY``).
    """
    if len(shape) != 2:
        raise InvalidInputError(
            f"{path}: expected a table with two dimensions, found {len(shape)}", code="NOT_A_TABLE"
        )
    if 0 in shape:
        raise InvalidInputError(f"{path}: the table is empty, {shape[0]} x {shape[1]}", code="TABLE_EMPTY")
    return shape[0], shape[1]


def read_index(path: Path, read: JsonReader = read_json) -> dict[str, str]:
    """Read the index of a sharded checkpoint: tensor -> plain file name of its shard.

    Raises:
        InvalidInputError: it has no such map (``INDEX_MALFORMED``), or names something other than a plain
            safetensors file (``INDEX_UNSAFE``, ``PICKLE_REFUSED``).
    """
    index = read(path, what="the checkpoint index")
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(v, str) for v in shards.values()):
        raise InvalidInputError(f"{path} has no weight_map of file names", code="INDEX_MALFORMED")
    for shard in set(shards.values()):
        # A separator, a drive letter or ".." would reach outside the folder.
        if (
            any(mark in shard for mark in "/\\:")
            or not shard.isprintable()
            or shard.startswith(".")
            or len(shard) > 200
        ):
            raise InvalidInputError(
                f"{path} names {quote(shard)}, which is not a plain file name", code="INDEX_UNSAFE"
            )
        if Path(shard).suffix in PICKLE_SUFFIXES:
            raise InvalidInputError(f"{path} names the pickle {quote(shard)}", code="PICKLE_REFUSED")
        if not shard.endswith(".safetensors"):
            raise InvalidInputError(f"{path} names {quote(shard)}, not safetensors", code="INDEX_MALFORMED")
    return shards


def _no_checkpoint(folder: Path) -> InvalidInputError | UsageError:
    try:
        entries = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        return UsageError(f"cannot read {folder}: {error.strerror}", code="FILE_UNREADABLE")
    pickles = [name for name in entries if Path(name.removesuffix(".index.json")).suffix in PICKLE_SUFFIXES]
    if pickles:
        return InvalidInputError(
            f"{folder} has only the pickle {quote(pickles[0])}: convert the checkpoint to safetensors",
            code="PICKLE_REFUSED",
        )
    files = [name for name in entries if name.endswith(".safetensors")]
    hint = f"; found {_listed(files)}: name the file itself" if files else ""
    return UsageError(f"{folder} has neither {SINGLE} nor {INDEX}{hint}", code="CHECKPOINT_MISSING")


def _listed(names: Collection[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return (", ".join(quote(name) for name in ordered[:_LISTED]) or "nothing") + more
