"""Repositories' tokenizers of many kinds, as the real transformers and tokenizers write them into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AlbertTokenizer, BertTokenizer, PreTrainedTokenizerFast

from albert_hub_bridge.model.sentencepiece_unigram import parse_vocabulary
from conversion.sample import CORPUS, train_vocabulary


MAX_TOKENS = 450  # of all kinds, so that one model can have any of them

_SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_BERTS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def _words() -> list[str]:
    characters = sorted({character for line in CORPUS for character in line.lower() if character != " "})
    words = sorted({word for line in CORPUS for word in line.split() if word.isalpha()})
    return [*_BERTS.values(), *characters, *(f"##{character}" for character in characters), *words][:440]


def word_pieces(folder: Path) -> None:
    """The files that most Chinese ALBERTs have."""
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in _words()), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 48}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def word_pieces_named_in_config(folder: Path) -> None:
    word_pieces(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tokenizer_class": "BertTokenizer"}))


def saved_word_pieces(folder: Path) -> None:
    BertTokenizer(vocab={word: index for index, word in enumerate(_words())}).save_pretrained(folder)


def _wrapped(tokenizer: Tokenizer, folder: Path, special: dict[str, str] = _SPECIAL) -> None:
    ids = {name: tokenizer.token_to_id(token) for name, token in special.items()}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["cls"]), ("[SEP]", ids["sep"])],
    )
    names = {f"{name}_token": token for name, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def _unigram(*steps: normalizers.Normalizer) -> Tokenizer:
    pieces = parse_vocabulary(train_vocabulary(user_defined_symbols=[])).pieces
    tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def pipeline(folder: Path) -> None:
    """The recipe in the documentation of the tokenizers library."""
    _wrapped(_unigram(normalizers.Nmt(), normalizers.NFKC()), folder)


def cased_pipeline(folder: Path) -> None:
    """What transformers 4 made of a cased SentencePiece model, with a class that runs it as it is."""
    _wrapped(_unigram(normalizers.Replace("``", '"'), normalizers.Replace("''", '"')), folder)


def byte_pairs(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=list(_BERTS.values()), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    _wrapped(tokenizer, folder, _BERTS)


def alberts(folder: Path) -> AlbertTokenizer:
    """transformers 5 makes added tokens of the user-defined pieces, such as `(` and `.`."""
    (folder / "spiece.model").write_bytes(train_vocabulary())
    return AlbertTokenizer.from_pretrained(folder)


def cut_out(folder: Path) -> None:
    alberts(folder).save_pretrained(folder)


def added(folder: Path) -> None:
    tokenizer = alberts(folder)
    tokenizer.add_tokens(["skype", "covid19"])
    tokenizer.add_tokens([AddedToken("[E1]", special=True), AddedToken("[/E1]", special=True)], special_tokens=True)
    tokenizer.save_pretrained(folder)


def added_beside_a_model(folder: Path) -> None:
    """What transformers 4 saved of a slow tokenizer with added tokens."""
    proto = train_vocabulary(user_defined_symbols=[])
    (folder / "spiece.model").write_bytes(proto)
    count = len(AlbertTokenizer.from_pretrained(folder))
    tokens = ["skype", "[E1]"]
    (folder / "added_tokens.json").write_text(json.dumps({token: count + n for n, token in enumerate(tokens)}))
    decoder = {str(count + n): {"content": token, "special": n == 1} for n, token in enumerate(tokens)}
    settings = {"tokenizer_class": "AlbertTokenizer", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def japanese(folder: Path, subwords: str) -> None:
    """What Japanese ALBERTs have: MeCab finds words, and a vocabulary splits them. `subwords` is the kind of that."""
    settings = {
        "tokenizer_class": "BertJapaneseTokenizer",
        "word_tokenizer_type": "mecab",
        "subword_tokenizer_type": subwords,
        "mecab_kwargs": {"mecab_dic": "ipadic"},
        "model_max_length": 48,
    }
    if subwords == "sentencepiece":
        (folder / "spiece.model").write_bytes(train_vocabulary(user_defined_symbols=[]))
        settings |= {f"{name}_token": token for name, token in _SPECIAL.items()}
    else:
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in [*_words()[:400], "東京", "都", "に"]))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
