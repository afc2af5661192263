"""The files of a Hub repository."""

from __future__ import annotations

from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.mapping.onnx_names import ONNX_FILES


CONFIG = "config.json"
TOKENIZER, TOKENIZER_CONFIG, VOCABULARY = "tokenizer.json", "tokenizer_config.json", "spiece.model"
# transformers before version 5 wrote these two as well. They repeat what the other files say, where there are others.
ADDED_TOKENS, SPECIAL_TOKENS = "added_tokens.json", "special_tokens_map.json"
# The vocabularies of tokenizers that are not ALBERT's.
WORD_PIECES, BYTE_PAIRS = "vocab.txt", ("vocab.json", "merges.txt")
TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, ADDED_TOKENS, SPECIAL_TOKENS, WORD_PIECES, *BYTE_PAIRS)
# Files of sentence-transformers.
MODULES, SENTENCE_TRANSFORMERS = "modules.json", "config_sentence_transformers.json"
TRANSFORMER, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
POOLING_FILES = (MODULES, SENTENCE_TRANSFORMERS, TRANSFORMER, POOLING)
# The modules after the encoder that are carried over, each in a folder with its number.
MODULE_KINDS = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
MODULE_FILES = (
    *(f"#_{kind}/config.json" for kind in MODULE_KINDS),
    "#_Dense/model.safetensors",
    "#_LayerNorm/model.safetensors",
)

WEIGHTS, PYTORCH, TENSORFLOW, FLAX = "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"


def index_of(weights: str) -> str:
    """Return the name of the index of shards, such as `model.safetensors.index.json`."""
    return f"{weights}.index.json"


def shards_of(weights: str) -> str:
    """Return the pattern of the names of shards, such as `model-#####-of-#####.safetensors`."""
    stem, _, suffix = weights.rpartition(".")
    return f"{stem}-#####-of-#####.{suffix}"


def _weights(name: str) -> tuple[str, ...]:
    return name, index_of(name), shards_of(name)


# Where a repository has weights in several formats, the first of these rows is read.
FILES = (
    FileRow((CONFIG,), "settings"),
    FileRow(TOKENIZER_FILES, "tokenizer"),
    FileRow((MODULES, SENTENCE_TRANSFORMERS, TRANSFORMER, *MODULE_FILES), "pooling"),
    FileRow(_weights(WEIGHTS), "weights"),
    FileRow(_weights(PYTORCH), "legacy weights", written=False),
    FileRow(_weights(TENSORFLOW), "legacy weights", written=False),
    FileRow(_weights(FLAX), "legacy weights", written=False),
    FileRow(tuple(ONNX_FILES.values()), "exported", downloaded=False),
)
