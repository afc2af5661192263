"""Advice for visitors: messages of the commands name options, and this says which field of the page is meant."""

from __future__ import annotations

import re


PRIVATE_OPTIONS = "Options for private or unusual models"
MORE_OPTIONS = "More options"
HEAD, LEAVE_OUT = "Head", "leave it out"
NORMALIZATION = "Text normalization"
LABELS = "Labels of a classifier"
DROP_TOKENIZER = "Leave out what is no SentencePiece vocabulary of the tokenizer"
APPROXIMATE_GELU = "keras: compute gelu by its tanh approximation, and report the difference"
UNVERIFIED = "Although a check failed"

# fmt: off
_ON_THE_PAGE = {
    "--allow-pickle":           "This page reads no pickles.",
    "--drop-head":              f'On this page, choose "{LEAVE_OUT}" as the {HEAD} in "{PRIVATE_OPTIONS}".',
    "--head":                   f'On this page, the field {HEAD} is in "{PRIVATE_OPTIONS}".',
    "--normalize":              f'On this page, it is the field "{NORMALIZATION}".',
    "--labels":                 f'On this page, the field "{LABELS}" is in "{MORE_OPTIONS}".',
    "--drop-tokenizer":         f'On this page, tick "{DROP_TOKENIZER}" in "{MORE_OPTIONS}".',
    "--allow-approximate-gelu": f'On this page, tick "{APPROXIMATE_GELU}" in "{MORE_OPTIONS}".',
    "--no-verify":              f'On this page, tick "{UNVERIFIED}" above the buttons.',
}
# fmt: on
_OF_THE_COMMAND = "This page does not do that. The command does, on your own machine: pip install albert-hub-bridge"


def for_visitors(message: str) -> str:
    """Return a message of a command, followed by what a visitor can do on the page.

    Args:
        message: It may name options of the command, such as `--drop-head`.
    """
    options = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", message))
    known = [_ON_THE_PAGE[option] for option in options if option in _ON_THE_PAGE]
    advice = known or ([_OF_THE_COMMAND] if options else [])
    return " ".join([message, *advice])
