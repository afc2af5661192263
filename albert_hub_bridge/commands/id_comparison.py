"""Compare the ids of the sample texts before and after a conversion, with the libraries of both layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerFiles
from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS, LayoutName, SourceLayoutName
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.layouts.hub.files import CONFIG, TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.hub.spelling import SPELLINGS, repository_layout
from albert_hub_bridge.layouts.hub.tokenizer_files import write_tokenizer_files
from albert_hub_bridge.layouts.keras.compatibility import with_cut_out_pieces
from albert_hub_bridge.layouts.tokenize import tokenize
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


_PAIR = ("a first text", "and a second")


@dataclass(frozen=True, slots=True)
class IdComparison:
    """What a conversion changes of the ids.

    Args:
        changed: Number of sample texts that have other ids than in the source; None if that was not compared.
        notes: Notes for the report.
    """

    changed: int | None
    notes: Sequence[str] = ()


def compare_ids(source: Checkpoint, target: Checkpoint, to: LayoutName, folder: Path) -> IdComparison:
    """Compare a source with its conversion.

    Args:
        source: As it was read.
        target: As it was written.
        to: The layout of the target.
        folder: Where it was written.
    """
    if not (source.has_tokenizer and target.has_tokenizer):
        return IdComparison(None)
    if source.tokenizer_files is None:
        before, after = (_ids_of(each, layout) for each, layout in ((source, source.layout), (target, to)))
        return IdComparison(_count(before, after, *_ids_of_keras_half(target, to)))
    return _compare_with_transformers(source, source.tokenizer_files, target, to, folder)


def _compare_with_transformers(
    source: Checkpoint, files: TokenizerFiles, target: Checkpoint, to: LayoutName, folder: Path
) -> IdComparison:
    """Compare the conversion of a repository with what transformers makes of the repository."""
    # These take seconds to import, which the conversion of a preset does not need.
    from albert_hub_bridge.verification.engines.transformers import load_tokenizer, token_ids

    try:
        with TemporaryDirectory() as checked:  # the files that were read, and no other files of the source
            _write_tokenizer(files, source.layout, Path(checked))
            before = load_tokenizer(Path(checked))
    except EngineError as error:
        return IdComparison(None, [f"The ids were not compared. The source's tokenizer {_cause(error)}"])
    ids = token_ids(before, SAMPLE_TEXTS)
    is_carried = target.tokenizer_files is not None and target.tokenizer_files.fit(to)
    after = load_tokenizer(folder) if is_carried else None
    others = token_ids(after, SAMPLE_TEXTS) if after is not None else _ids_of(target, to)
    notes = [*_other_version(source, ids, is_carried), *_segments(before, after, to)]
    return IdComparison(_count(ids, others, *_ids_of_keras_half(target, to)), notes)


def _write_tokenizer(files: TokenizerFiles, source: SourceLayoutName, folder: Path) -> None:
    """Write what AutoTokenizer reads of a repository into an empty folder."""
    layout = repository_layout(source)
    write_json(folder / CONFIG, {"model_type": SPELLINGS[layout].model_type})
    write_tokenizer_files(files, folder, layout)


def _cause(error: EngineError) -> str:
    """Return what an engine says, without the name of the folder."""
    return "fails" + str(error).partition(" fails")[2]


def _ids_of(checkpoint: Checkpoint, layout: SourceLayoutName) -> list[list[int]]:
    return tokenize(checkpoint.tokenizer, layout, SAMPLE_TEXTS) if checkpoint.tokenizer is not None else []


def _ids_of_keras_half(checkpoint: Checkpoint, to: LayoutName) -> list[list[list[int]]]:
    """Return what KerasHub makes of a universal target, which is to be the same."""
    return [_ids_of(with_cut_out_pieces(checkpoint), "keras")] if to == "universal" else []


def _count(ids: Sequence[Sequence[int]], *others: Sequence[Sequence[int]]) -> int:
    """Count the texts that have other ids, in any of the others."""
    rows = zip(ids, *others, strict=True)
    return sum(any(list(other) != list(row[0]) for other in row[1:]) for row in rows)


def _other_version(source: Checkpoint, ids: Sequence[Sequence[int]], is_carried: bool) -> Iterator[str]:
    """Note how many texts have other ids in transformers 4, which runs `tokenizer.json` as it is."""
    import transformers
    from tokenizers import Tokenizer

    files = source.tokenizer_files
    if source.layout not in TRANSFORMERS_LAYOUTS or files is None:
        return
    if TOKENIZER not in files.contents:
        if is_carried and VOCABULARY in files.contents:
            yield (
                f"Neither the source nor the target has a {TOKENIZER}. Each version of transformers makes its own of "
                f"{VOCABULARY} and the added tokens, and version 4 may find other ids than "
                f"{transformers.__version__}. Each finds the same ids in both folders."
            )
        return
    pipeline = Tokenizer.from_str(files.contents[TOKENIZER].decode())
    pipeline.no_truncation()
    pipeline.no_padding()
    pipeline.encode_special_tokens = True
    others = [each.ids for each in pipeline.encode_batch(list(SAMPLE_TEXTS), add_special_tokens=False)]
    if changed := _count(ids, others):
        yield (
            f"{changed} of {len(SAMPLE_TEXTS)} sample texts have other ids in transformers 4, which runs {TOKENIZER}, "
            f"than in transformers {transformers.__version__}, which builds {files.class_name}'s own pipeline. "
            f"The target keeps {'both' if is_carried else 'the latter'}."
        )


def _segments(before: Any, after: Any, to: LayoutName) -> Iterator[str]:
    """Note that transformers 5 gives no segment ids for a pair, which ALBERT was trained with."""
    import transformers

    if "token_type_ids" in before(*_PAIR):
        return
    if after is not None:
        where = "As in the source, both texts of a pair are in segment 0 in the target"
    else:
        library = "KerasHub" if to == "keras" else "The target"
        where = f"{library} puts the second text of a pair into segment 1, as ALBERT was trained. In the source it is 0"
    yield f"{where}: transformers {transformers.__version__} gives no token_type_ids. transformers 4 gives them."
