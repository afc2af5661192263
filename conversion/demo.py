"""Convert a preset to a repository, to transformers and back, in one minute: `make demo`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import albert_hub_bridge
from albert_hub_bridge.cli import app
from albert_hub_bridge.layouts.registry import read_checkpoint
from conversion.sample import write_sample_preset


SENTENCES = ("The same text in, the same numbers out.", "Nothing that crosses the bridge is lost.")

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Convert in the folder `demo`, and print each step."""
    demo = Path("demo")
    demo.mkdir(exist_ok=True)
    preset, repository, plain, back = (demo / name for name in ("preset", "repository", "transformers", "preset-again"))

    _step(f"A small KerasHub preset with random weights, without Keras: {preset}")
    write_sample_preset(preset)
    _command("inspect", str(preset))

    _step("Convert it to a Hub repository")
    _command("convert", str(preset), str(repository), "--to", "albert_hub", "--overwrite")

    _step("Load it as any transformers model")
    _show_transformers(repository)

    _step("Verify it with transformers' own AlbertModel")
    _command("convert", str(preset), str(plain), "--to", "transformers", "--overwrite")
    _command("verify", str(preset), str(plain))

    _step("Convert it back: every weight is the same")
    _command("convert", str(repository), str(back), "--to", "keras", "--overwrite")
    _count_identical(preset, back)


def _step(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}", align="left")


def _command(*arguments: str) -> None:
    console.print(f"[dim]$ albert-hub-bridge {' '.join(arguments)}")
    try:
        app(arguments)
    except SystemExit as end:
        if end.code:
            raise


def _show_transformers(repository: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    console.print("[dim]>>> import albert_hub_bridge")
    console.print(f"[dim]>>> model = AutoModel.from_pretrained('{repository}')")
    model = AutoModel.from_pretrained(repository)
    console.print(f"{type(model).__name__}, {model.num_parameters():,} parameters")
    console.print(f"[dim]>>> tokenizer = AutoTokenizer.from_pretrained('{repository}')")
    tokenizer = AutoTokenizer.from_pretrained(repository)
    console.print(f"{type(tokenizer).__name__}, {tokenizer.vocab_size} pieces")
    console.print("[dim]>>> pipeline('feature-extraction', model=model, tokenizer=tokenizer)(sentences)")
    for sentence, features in zip(
        SENTENCES, pipeline("feature-extraction", model=model, tokenizer=tokenizer)(list(SENTENCES)), strict=True
    ):
        first = ", ".join(f"{value:+.4f}" for value in features[0][0][:4])
        console.print(f"{len(features[0])} tokens x {len(features[0][0])}: [{first}, ...]  {sentence}", markup=False)


def _count_identical(preset: Path, back: Path) -> None:
    with read_checkpoint(preset) as before, read_checkpoint(back) as after:
        same = sum(
            before.read(rule, "keras").tobytes() == after.read(rule, "keras").tobytes() for rule in before.encoder_rules
        )
        console.print(f"[bold green]{same} of {len(before.encoder_rules)} weights are identical, bit for bit.")
        if same != len(before.encoder_rules):
            raise SystemExit(1)


if __name__ == "__main__":
    print(f"albert-hub-bridge {albert_hub_bridge.__version__}")
    main()
