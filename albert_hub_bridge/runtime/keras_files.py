"""The files of a backbone: presets, files of weights and repositories."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.disk.atomic import new_file, new_folder
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.keras.weights_file import KERAS_SUFFIX, read_weights_file, write_weights_file
from albert_hub_bridge.layouts.registry import is_written_file, write_checkpoint
from albert_hub_bridge.runtime.keras_model import KerasModel, absolute_path
from albert_hub_bridge.runtime.stored_weights import as_checkpoint, set_weights


class KerasFiles(KerasModel):
    """The methods of Keras and KerasHub that read and write weights."""

    def save_to_preset(
        self, preset_dir: str | Path, max_shard_size: float | None = 10, *, overwrite: bool = False
    ) -> None:
        """Write a preset that `keras_hub.models.AlbertBackbone.from_preset` loads. It has no tokenizer.

        As in Keras, LoRA is merged into the kernels.

        Args:
            preset_dir: The folder to create, with its parents. Unlike in KerasHub, existing files are never mixed with
                new ones.
            max_shard_size: The largest size of a file of weights, in GB (powers of 1024, as in Keras). None for one
                file.
            overwrite: Whether to replace an existing preset or repository as a whole.

        Raises:
            TargetError: The folder exists and is not empty, or is not a preset or repository.
            ValueError: Presets cannot have the dtype of the parameters, such as float64.
        """
        max_shard_bytes = None if max_shard_size is None else int(max_shard_size * 1024**3)
        self._write_folder(preset_dir, "keras", max_shard_bytes, overwrite)

    def export_to_transformers(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a repository that transformers' `AutoModel.from_pretrained` loads. It has no tokenizer.

        `albert_hub_bridge.convert` also converts tokenizers and heads, from a preset.

        Args:
            path: The folder to create, with its parents.
            overwrite: Whether to replace an existing preset or repository as a whole.

        Raises:
            TargetError: The folder exists and is not empty, or is not a preset or repository.
            ValueError: Repositories cannot have the dtype of the parameters, such as float64.
        """
        self._write_folder(path, "transformers", None, overwrite)

    def _write_folder(self, path: str | Path, layout: LayoutName, max_shard_bytes: int | None, overwrite: bool) -> None:
        self._check_dtype()
        folder = absolute_path(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = as_checkpoint(self.model, self.architecture, folder)
        with new_folder(folder, overwrite, is_written_file) as staging:
            write_checkpoint(checkpoint, staging, layout, max_shard_bytes=max_shard_bytes)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the weights into a file for Keras' `load_weights`. As in Keras, LoRA is merged into the kernels.

        Args:
            filepath: A file that ends in `.weights.h5`.
            overwrite: Whether to replace an existing file.

        Raises:
            TargetError: The file exists, or cannot be written.
            ValueError: The name ends in something else, or the file cannot have the dtype of the parameters.
        """
        self._check_dtype()
        file = absolute_path(filepath, KERAS_SUFFIX)
        with new_file(file, overwrite) as staged:
            write_weights_file(as_checkpoint(self.model, self.architecture, file), staged)

    def load_weights(self, filepath: str | Path) -> None:
        """Load the weights of a file of Keras' `save_weights`. They are cast to the dtype of the parameters.

        LoRA adds nothing to the new weights, until it is trained or loaded again.

        Args:
            filepath: A file that ends in `.weights.h5`. It may also be the file of a preset.

        Raises:
            FileNotFoundError: The file does not exist.
            CheckpointError: The file is damaged, or was saved from another architecture. All problems are listed.
            ValueError: The name ends in something else.
        """
        with ExitStack() as resources:
            weights = read_weights_file(absolute_path(filepath, KERAS_SUFFIX), self.architecture, resources)
            set_weights(self.model, self.architecture, weights)

    def _check_dtype(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"A file can be {', '.join(DTYPES)}, not {self.dtype}; cast the model first.")
