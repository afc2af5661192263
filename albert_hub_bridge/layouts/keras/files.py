"""The files of a KerasHub preset.

Source:
    keras_hub/src/utils/preset_utils.py.
"""

from __future__ import annotations

from albert_hub_bridge.layouts.files import FileRow


CONFIG, TASK, METADATA = "config.json", "task.json", "metadata.json"
PREPROCESSOR, TOKENIZER, VOCABULARY = "preprocessor.json", "tokenizer.json", "assets/tokenizer/vocabulary.spm"
# The name of `TOKENIZER` where that is the file of the tokenizers library, which refuses a file with other keys.
KERAS_TOKENIZER = "keras_tokenizer.json"
WEIGHTS, INDEX, SHARDS = "model.weights.h5", "model.weights.json", "model_#####.weights.h5"
TASK_WEIGHTS = "task.weights.h5"

FILES = (
    FileRow((CONFIG, TASK), "settings"),
    FileRow((METADATA,), "record"),
    FileRow((PREPROCESSOR, TOKENIZER, VOCABULARY), "tokenizer"),
    FileRow((WEIGHTS, INDEX, SHARDS, TASK_WEIGHTS), "weights"),
)
