"""The page: its fields and buttons from top to bottom, and the action of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, get_args

import gradio as gr

from albert_hub_bridge._version import __version__
from albert_hub_bridge.choices import Dtype, LayoutName, Normalize
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.ui.actions import AS_IN_SOURCE, Actions
from albert_hub_bridge.ui.advice import (
    APPROXIMATE_GELU,
    DROP_TOKENIZER,
    HEAD,
    LABELS,
    LEAVE_OUT,
    MORE_OPTIONS,
    NORMALIZATION,
    PRIVATE_OPTIONS,
    UNVERIFIED,
)
from albert_hub_bridge.ui.limits import Limits
from albert_hub_bridge.verification.side_by_side import MAX_TEXTS


TITLE = "ALBERT between KerasHub and Hugging Face"
_HEAVY, _LIGHT = ("heavy", 1), ("light", 2)  # names of queues, and how many run in each at once
_LAYOUTS = {
    "transformers": "transformers: a repository for transformers alone",
    "keras": "keras: a KerasHub preset",
    "universal": "universal: a preset and a repository in one folder",
    "albert_hub": "albert_hub: a repository for the classes of this package",
}
_NORMALIZATIONS = {
    "keep": "keep: the same as in the source",
    "none": "none: nothing before the vocabulary's own",
    "uncased": "uncased: lower-case, strip accents",
}
_TEXTS = "A bridge joins two banks of a river.\nThe river has two banks.\nBread costs 2.50 £, in 1984, or 3 €."


def theme() -> gr.themes.Base:
    """Return the theme. Its fonts are those of the visitor's system, so nothing is loaded from another host."""
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(  # Gradio's own greys are too light to read
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def css() -> str:
    """Return the style of what the page itself renders."""
    return files(__package__).joinpath("page.css").read_text(encoding="utf-8")


class Page:
    """The page.

    Args:
        actions: What it does.
        limits: Of a visit.
        with_login: Whether visitors log in with Hugging Face, as on a Space, instead of typing a token.
    """

    def __init__(self, actions: Actions, limits: Limits, *, with_login: bool) -> None:
        self._actions, self._limits, self._with_login = actions, limits, with_login

    def build(self) -> gr.Blocks:
        """Return the page, ready to be launched."""
        blocks: gr.Blocks
        with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
            gr.HTML(_header())
            self._choose()
            self._convert()
            self._look()
            self._take()
            gr.HTML(_footer(self._limits))
            blocks.unload(self._actions.leave)
        blocks.queue(max_size=self._limits.waiting, default_concurrency_limit=2)
        return blocks

    def _choose(self) -> None:
        with gr.Column(elem_classes="ahb-section"):
            gr.HTML(_title(1, "Choose a model", "It is inspected at once. Nothing is converted yet."))
            source = gr.Textbox(
                value="",
                label="Repository, Kaggle handle or preset",
                placeholder="albert/albert-base-v2",
                info=f"user/repo on Hugging Face, kaggle://org/model/keras/name, or {', '.join(PUBLISHED_PRESETS)}",
                max_lines=1,
                elem_id="source",
            )
            upload = gr.File(
                label="or a zip of the folder", file_types=[".zip"], type="filepath", height=140, elem_id="upload"
            )
            with gr.Accordion(PRIVATE_OPTIONS, open=False):
                self._token_field()
                self._head = gr.Dropdown(
                    [AS_IN_SOURCE, *get_args(HeadKind), LEAVE_OUT],
                    value=AS_IN_SOURCE,
                    label=HEAD,
                    info="The head of a source that does not say which it has; or leave it out.",
                    elem_id="head",
                )
            inspect = gr.Button("Inspect", variant="primary", elem_id="inspect")
            shown, data = _output("inspection")
        triggers = [inspect.click, source.submit]
        inputs = [source, self._head, self._token]
        _listen(triggers, self._actions.inspect, inputs, [shown, data], "inspect", _LIGHT)
        outputs = [shown, data, upload]
        _listen([upload.upload], self._actions.inspect_upload, [upload, self._head], outputs, "inspect_upload", _LIGHT)

    def _token_field(self) -> None:
        if self._with_login:
            gr.LoginButton()
        self._token = gr.Textbox(
            value="",
            label="Your token for Hugging Face",
            info="For private models, pushes and pull requests. It is used for what you ask for, and kept nowhere.",
            type="password",
            max_lines=1,
            visible=not self._with_login,
            elem_id="token",
        )

    def _convert(self) -> None:
        with gr.Column(elem_classes="ahb-section"):
            gr.HTML(_title(2, "Convert and verify", "Both libraries compute the result, and it is compared."))
            layout = gr.Radio(
                [(_LAYOUTS[name], name) for name in _LAYOUTS if name in get_args(LayoutName)],
                value="transformers",
                label="Layout",
                elem_id="layout",
            )
            with gr.Row():
                dtype = gr.Dropdown(
                    [AS_IN_SOURCE, *get_args(Dtype)],
                    value=AS_IN_SOURCE,
                    label="Dtype of the weights",
                    min_width=240,
                    elem_id="dtype",
                )
                normalize = gr.Dropdown(
                    [(_NORMALIZATIONS[name], name) for name in get_args(Normalize)],
                    value="keep",
                    label=NORMALIZATION,
                    min_width=240,
                    elem_id="normalize",
                )
            with gr.Accordion(MORE_OPTIONS, open=False):
                labels = gr.Textbox(
                    value="",
                    label=LABELS,
                    placeholder="negative,positive",
                    max_lines=1,
                    elem_id="labels",
                )
                drop_tokenizer = gr.Checkbox(label=DROP_TOKENIZER)
                gelu = gr.Checkbox(label=APPROXIMATE_GELU)
            with gr.Row():
                convert = gr.Button("Convert", variant="primary", elem_id="convert")
                stop = gr.Button("Stop", elem_id="stop")
            shown, data = _output("conversion")
        inputs = [layout, dtype, normalize, self._head, labels, drop_tokenizer, gelu, self._token]
        _listen([convert.click], self._actions.convert, inputs, [shown, data], "convert", _HEAVY)
        stop.click(self._actions.stop, api_name="stop", queue=False, show_progress="hidden")

    def _look(self) -> None:
        with gr.Column(elem_classes="ahb-section"):
            gr.HTML(_title(3, "Look at texts", "The pieces and ids of both libraries, and how similar texts are."))
            texts = gr.Textbox(
                value=_TEXTS, label=f"Texts, one a line, at most {MAX_TEXTS}", lines=3, max_lines=8, elem_id="texts"
            )
            look = gr.Button("Look", variant="primary", elem_id="look")
            shown, data = _output("looks")
        _listen([look.click], self._actions.look, [texts], [shown, data], "look", _HEAVY)

    def _take(self) -> None:
        with gr.Column(elem_classes="ahb-section"):
            gr.HTML(_title(4, "Take it", "As a zip, into a repository of yours, or as a pull request."))
            with gr.Tabs():
                with gr.Tab("Download", id="download"):
                    self._download()
                with gr.Tab("Push", id="push"):
                    self._push()
                with gr.Tab("Complete by a pull request", id="complete"):
                    self._complete()

    def _download(self) -> None:
        with gr.Row():
            pack = gr.Button("Make the zip", variant="primary", elem_id="pack")
            file = gr.DownloadButton("Download", interactive=False, elem_id="file")
        shown, data = _output("packed")
        _listen([pack.click], self._actions.download, [], [shown, data, file], "download", _LIGHT)

    def _push(self) -> None:
        repository = gr.Textbox(
            value="", label="Repository of yours", placeholder="user/my-albert", max_lines=1, elem_id="repository"
        )
        with gr.Row():
            private = gr.Checkbox(label="Private, if it is made now", elem_id="private")
            create_pr = gr.Checkbox(label="As a pull request", elem_id="create-pr")
            unverified = gr.Checkbox(label=UNVERIFIED, elem_id="unverified")
        with gr.Row():
            plan = gr.Button("Dry run", variant="primary", elem_id="plan-push")
            push = gr.Button("Push", elem_id="push-now")
        shown, data = _output("pushed")
        planned = [repository, unverified, self._token]
        _listen([plan.click], self._actions.plan_push, planned, [shown, data], "plan_push", _LIGHT)
        inputs = [repository, private, create_pr, unverified, self._token]
        _listen([push.click], self._actions.push, inputs, [shown, data], "push", _LIGHT)

    def _complete(self) -> None:
        gr.HTML(
            '<p class="ahb-about">Adds to a preset or a transformers repository what the other library needs, so that '
            "both load it by one name. Files that are there stay as they are.</p>"
        )
        repository = gr.Textbox(
            value="",
            label="Repository on Hugging Face",
            placeholder="that of step 1",
            max_lines=1,
            elem_id="incomplete",
        )
        with gr.Row():
            plan = gr.Button("Dry run", variant="primary", elem_id="plan-complete")
            complete = gr.Button("Open the pull request", elem_id="complete-now")
        shown, data = _output("completed")
        inputs = [repository, self._token]
        _listen([plan.click], self._actions.plan_completion, inputs, [shown, data], "plan_complete", _HEAVY)
        _listen([complete.click], self._actions.complete, inputs, [shown, data], "complete", _HEAVY)


def _output(name: str) -> tuple[gr.HTML, gr.JSON]:
    """Return where an action shows what it finds, and where programs get it as data."""
    return gr.HTML(label="shown", elem_id=name, elem_classes="ahb-output", apply_default_css=False), gr.JSON(
        visible=False, label="report"
    )


def _listen(
    triggers: Sequence[Any],
    action: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    name: str,
    queue: tuple[str, int],
) -> None:
    """Run an action on events, in one of the queues. Programs find it in the API by its name."""
    gr.on(
        triggers,
        action,
        list(inputs),
        list(outputs),
        api_name=name,
        show_progress="minimal",
        show_progress_on=outputs[0],
        trigger_mode="once",
        concurrency_id=queue[0],
        concurrency_limit=queue[1],
    )


def _title(number: int, title: str, about: str) -> str:
    return f'<h2><span class="ahb-number">{number}</span> {title}</h2><p class="ahb-about">{about}</p>'


def _header() -> str:
    return (
        '<header class="ahb-header">'
        f"<h1>{TITLE}</h1>"
        "<p>Convert an ALBERT model between a KerasHub preset and a repository for transformers, and see measured that "
        "it stayed the same model.</p></header>"
    )


def _footer(limits: Limits) -> str:
    upload, memory, minutes = limits.upload_bytes / 1e9, limits.memory_bytes / 1e9, limits.heavy_seconds / 60
    return (
        '<footer class="ahb-footer"><p>'
        f"albert-hub-bridge {__version__}. Uploads may have {upload:g} GB, and a conversion {minutes:g} minutes and "
        f"{memory:g} GB of memory; one runs at a time. Your files are removed when you close the page. "
        "Nothing of a source is run, and pickles are refused.</p></footer>"
    )
