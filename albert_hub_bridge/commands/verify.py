"""The command `verify SOURCE TARGET`: compare two folders, and write the result into the target's record and card."""

from __future__ import annotations

from pathlib import Path

from albert_hub_bridge.commands.recording import Recorded, record_verification
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceNotFoundError
from albert_hub_bridge.layouts.registry import pull
from albert_hub_bridge.verification.report import Verification
from albert_hub_bridge.verification.run import verify
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


def verify_and_record(
    source: str | Path,
    target: str | Path,
    *,
    texts_file: Path | None = None,
    tolerance: float = 1e-5,
    allow_pickle: bool = False,
) -> tuple[Verification, Recorded]:
    """Compare two folders as `albert_hub_bridge.verify` does, and record the result in the target.

    Args:
        source: As for `verify`.
        target: As for `verify`.
        texts_file: A UTF-8 file with one text a line; the built-in sample texts by default.
        tolerance: As for `verify`.
        allow_pickle: As for `verify`.

    Returns:
        The report, and whether it was recorded, or why not. See `record_verification`.

    Raises:
        AlbertHubBridgeError: As `verify`; or the file of texts does not exist, is empty or is not UTF-8.
    """
    texts = SAMPLE_TEXTS if texts_file is None else _read_texts(texts_file)
    report = verify(source, target, texts=texts, tolerance=tolerance, allow_pickle=allow_pickle)
    return report, record_verification(Path(target), report, pull(source).folder)


def _read_texts(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"The file {file} does not exist.") from error
    except UnicodeDecodeError as error:
        raise AlbertHubBridgeError(f"{file} is not UTF-8: {error}. Save it as UTF-8.") from error
    if not lines:
        raise AlbertHubBridgeError(f"{file} has no texts. Write one text a line.")
    return lines
