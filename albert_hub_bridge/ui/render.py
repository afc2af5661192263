"""What the page shows of reports and of work that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from albert_hub_bridge.layouts.layout import DESCRIPTIONS
from albert_hub_bridge.text import first_few
from albert_hub_bridge.ui.html import Html, badge, details, diff, facts, join, notes, scrolling, table, tag, text


Report = Mapping[str, Any]

STAGES = {"pull": "Pull", "read": "Read", "write": "Write", "verify": "Verify"}
_SHORT_STAGES = {"pull": "Pull", "read": "Read", "write": "Pack", "push": "Push", "verify": "Verify"}
_MAX_ROWS = 300  # of one text


def progress(stage: str, share: float, seconds: float, of: Sequence[str] = tuple(STAGES)) -> Html:
    """Return the stages of a job, and how far it is.

    Args:
        stage: The stage that runs.
        share: Of the stage, from 0 to 1.
        seconds: Since the job began.
        of: The stages of the job, in order.
    """
    names = STAGES if len(of) > 1 else _SHORT_STAGES
    steps = list(of) if stage in of else [*of, stage]
    position = steps.index(stage)
    done = (position + share) / len(steps)
    items = []
    for index, name in enumerate(steps):
        kind = "done" if index < position else "now" if index == position else "next"
        mark = {"done": "✓ ", "now": "", "next": ""}[kind]
        current = "step" if kind == "now" else None
        items.append(tag("li", mark, names.get(name, name), class_=f"ahb-{kind}", aria_current=current))
    said = f"{names.get(stage, stage)}, stage {position + 1} of {len(steps)}"
    bar = tag("progress", f"{done:.0%}", value=f"{done:.3f}", max="1", aria_label="Progress")
    return tag(
        "div",
        tag("ol", *items, class_="ahb-stages"),
        bar,
        tag("p", tag("span", said, role="status"), tag("span", f" · {seconds:.0f} s", aria_hidden="true")),
        class_="ahb-progress",
    )


def waiting(said: str) -> Html:
    """Return that a job begins."""
    return tag("div", tag("p", said, role="status"), tag("progress", aria_label="Progress"), class_="ahb-progress")


def error(message: str) -> Html:
    """Return the message of a command."""
    return tag("div", tag("strong", "Not done. "), tag("pre", message), class_="ahb-error", role="alert")


def finished(said: object) -> Html:
    """Return that a job ended well."""
    return tag("p", tag("span", "✓ ", aria_hidden="true"), said, class_="ahb-done", role="status")


def inspection(report: Report) -> Html:
    """Return what a source has: architecture, head, text normalization, and what would not be converted."""
    vocabulary = report["vocabulary"]
    rows: dict[str, object] = {
        "layout": DESCRIPTIONS[report["layout"]],
        "parameters": f"{report['parameters']:,} in {report['tensors']} tensors",
        "size": f"{report['bytes'] / 1e6:,.1f} MB, {report['dtype']}",
        "head": report["head"] or "none",
    }
    if vocabulary is None:
        rows["text normalization"] = "none: there is no tokenizer of ALBERT"
    else:
        inside = ", in the vocabulary" if vocabulary["normalization_in_vocabulary"] else ""
        origin = vocabulary["text_normalization_from"]
        rows["text normalization"] = f"{vocabulary['text_normalization']}{inside} ({origin})"
        rows["vocabulary"] = f"{vocabulary['pieces']:,} pieces, normalization {vocabulary['normalization']}"
    if report["made_by"]:
        rows["made by"] = report["made_by"]
    return join(
        [
            tag("h3", report["source"]),
            facts(rows, "What the source has"),
            details("Architecture", facts(report["settings"], "Architecture")),
            _losses(report) or tag("p", "Every file, tensor and setting of it would be converted."),
        ]
    )


def _losses(report: Report) -> Html:
    """Return what is not converted, and what there is to know."""
    tensors = [f"{each['name']} {tuple(each['shape'])}: {each['reason']}" for each in report["dropped"]]
    settings = [f"{each['key']} = {each['value']!r}: {each['reason']}" for each in report["ignored"]]
    files = [note for note in report["notes"] if note.startswith(("Files that", "Code of a source"))]
    others = [note for note in report["notes"] if note not in files]
    if left := report.get("not_downloaded"):
        files.append(f"No layout has them, and they were not downloaded: {first_few(left, 20)}.")
    return join(
        [
            notes(files, "Files that are not converted"),
            notes(tensors, "Tensors that are not converted"),
            notes(settings, "Settings that are not converted"),
            notes(others, "Notes"),
        ]
    )


def conversion(result: Report) -> Html:
    """Return the verification of a conversion, as people read it, and what the target is."""
    verified, converted = result["verification"], result["conversion"]
    passed = verified["passed"]
    outcome = "Source and target match." if passed else "Source and target differ."
    rows: dict[str, object] = {
        "source": f"{converted['source']['source']}, computed by {verified['source_engine']}",
        "target": f"{_last(converted['target'])}, computed by {verified['target_engine']}",
        "layout": DESCRIPTIONS[converted["layout"]],
        "dtype": converted["dtype"],
        "head": converted["head"] or "none",
        "text normalization": converted["text_normalization"] or "none",
    }
    if converted["changed_texts"] is not None:
        changed, size = converted["changed_texts"], converted["sample_size"]
        rows["other ids"] = f"{changed} of {size} sample texts have other ids than in the source"
    return join(
        [
            tag("h3", badge("passed" if passed else "failed"), f" {outcome}"),
            _checks(verified["checks"]),
            _layers(result),
            tokens(result["different"]["texts"][0], "The first text whose ids differ") if result["different"] else "",
            facts(rows, "What was compared"),
            notes(verified["notes"], "Notes on the comparison"),
            _losses(converted),
            details(f"{len(result['files'])} files", facts(_sizes(result["files"]), "Files")),
        ]
    )


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _sizes(files: Mapping[str, int]) -> dict[str, object]:
    return {name: f"{size:,} bytes" for name, size in files.items()}


def _checks(checks: Mapping[str, Report]) -> Html:
    rows = []
    for name, check in checks.items():
        found: list[object] = [tag("div", check["summary"])] if check["summary"] else []
        found += [tag("div", failure, class_="ahb-bad") for failure in check["failures"][:10]]
        found += [tag("div", f"not measured: {each}", class_="ahb-dim") for each in check["not_measured"]]
        rows.append((name, badge(check["outcome"]), _figure(check), join(found)))
    return table("Checks", ("check", "outcome", "largest difference", "what was compared"), rows, "ahb-checks")


def _figure(check: Report) -> Html:
    if check["value"] is None:
        return text("–" if check["limit"] is None else "not a number")
    allowed = check["limit"]
    if check["rounding"] is not None:
        return text(f"{check['value']:.1e}, explained by rounding of {check['rounding']:.1e}")
    share = min(check["value"] / allowed, 1) if allowed else 0
    meter = tag("meter", value=f"{share:.3f}", max="1", high="0.8", aria_hidden="true")
    return join([f"{check['value']:.1e} (at most {allowed:.0e})", meter])


def _layers(result: Report) -> Html:
    differences = result["verification"]["relative_layer_differences"]
    if not differences:
        return Html("")
    shown = ("–" if value is None else f"{value:.2e}" for value in differences)
    rows = [(index or "embeddings", value) for index, value in enumerate(shown)]
    picture = Html("")
    if result["picture"]:
        largest = max(value for value in differences if value is not None)
        alt = f"Curve of the largest relative difference after each layer run; the largest of all is {largest:.1e}."
        picture = scrolling(tag("img", alt=alt, src=f"data:image/png;base64,{result['picture']}", class_="ahb-picture"))
    numbers = table("Largest relative difference after each layer run", ("layer run", "difference"), rows)
    return join([tag("h4", "Parity after each layer"), picture, details("The same as numbers", numbers)])


def tokens(view: Report, caption: str) -> Html:
    """Return the pieces and ids of a text on both sides. Rows that differ have a mark and a colour."""
    rows = []
    for number, row in enumerate(view["rows"][:_MAX_ROWS], start=1):
        kind = None if row["same"] else "ahb-differs"
        mark = "" if row["same"] else tag("span", "≠", role="img", aria_label="differs")
        cells = [
            tag("td", tag("code", value) if value != "" else "", class_=kind)
            for side in (row["source"], row["target"])
            for value in ((side["piece"], side["id"]) if side else ("", ""))
        ]
        rows.append((join([str(number), " ", mark]), *cells))
    different = sum(not row["same"] for row in view["rows"])
    said = "the same ids" if not different else f"{different} of {len(view['rows'])} places differ"
    head = ("place", "source piece", "id", "target piece", "id")
    more = len(view["rows"]) - _MAX_ROWS
    return join(
        [
            table(join([f"{caption}: ", tag("q", view["text"]), f" — {said}"]), head, rows, "ahb-tokens"),
            tag("p", f"and {more} more") if more > 0 else "",
        ]
    )


def looks(report: Report) -> Html:
    """Return what both sides make of texts: pieces and ids, and how similar the texts are."""
    parts: list[object] = []
    texts = report["texts"]
    for number, view in enumerate(texts, start=1):
        shown = tokens(view, f"Text {number}" if len(texts) > 1 else "Text")
        outcome = badge("same ids" if view["same"] else "other ids")
        title = join([f"{number}. {_short(view['text'])} ", outcome])
        parts.append(shown if len(texts) == 1 else details(title, shown, is_open=number == 1 or not view["same"]))
    if report["source_similarity"] is not None and len(texts) > 1:
        parts += [
            tag("h4", "Similarity of the texts"),
            tag(
                "p",
                "Cosine similarity of the mean of the tokens' states. Largest difference between both libraries: "
                f"{report['largest_difference']:.1e}.",
            ),
            tag(
                "div",
                _matrix(report["source_similarity"], f"Source: {report['source_engine']}"),
                _matrix(report["target_similarity"], f"Target: {report['target_engine']}"),
                class_="ahb-matrices",
            ),
        ]
    return join(parts)


def _short(content: str) -> str:
    return content if len(content) <= 60 else f"{content[:60]}…"


def _matrix(rows: Sequence[Sequence[float]], caption: str) -> Html:
    cells = [
        (number, *(tag("td", f"{value:.3f}", style=f"--share: {max(0.0, min(value, 1.0)):.2f}") for value in row))
        for number, row in enumerate(rows, start=1)
    ]
    return table(caption, ("text", *range(1, len(rows) + 1)), cells, "ahb-matrix")


def push_plan(plan: Report) -> Html:
    """Return what a push would do."""
    outcome = "exists" if plan["exists"] else "does not exist yet, and would be made"
    files = plan["files"].items()
    rows = [(name, file["outcome"], f"{file['bytes']:,}", _hash(file["sha256"])) for name, file in files]
    return join(
        [
            tag("p", tag("strong", plan["target"]), f" {outcome}. It would be pushed as {plan['user']}."),
            table("Files", ("file", "what happens", "bytes", "SHA-256"), rows, "ahb-files"),
            tag("h4", "Changes of the card"),
            diff(plan["card_diff"]) if plan["card_diff"] else tag("p", "none"),
            tag("p", "Nothing was sent: this was a dry run.", class_="ahb-dim"),
        ]
    )


def _hash(digest: str) -> Html:
    return tag("code", f"{digest[:12]}…", title=digest)


def completion(report: Report) -> Html:
    """Return what a pull request would add, or has added."""
    rows = []
    for name in report["diffs"]:
        added = report["added"].get(name)
        size, digest = (f"{added['bytes']:,}", _hash(added["sha256"])) if added else ("–", text("–"))
        rows.append((name, "new" if added else "changed", size, digest))
    said = f" would load with {report['library']} too." if report["verified"] is None else ""
    changed = {name: lines for name, lines in report["diffs"].items() if not lines.startswith("new file ")}
    parts = [
        tag("p", tag("strong", report["source"]), said) if said else "",
        table("Files", ("file", "what happens", "bytes", "SHA-256"), rows, "ahb-files"),
        *(details(f"Changes of {name}", diff(lines), is_open=name == "README.md") for name, lines in changed.items()),
        notes(report["notes"], "Notes"),
    ]
    if report["verified"] is None:
        parts.append(tag("p", "Nothing was sent: this was a dry run.", class_="ahb-dim"))
    else:
        parts.insert(0, tag("p", report["verified"]))
    return join(parts)


def link(url: str, said: str) -> Html:
    """Return a link to what was made on the Hub."""
    if not url.startswith(("https://", "http://127.0.0.1")):
        return text(url)
    return join([said, tag("a", url, href=url, target="_blank", rel="noopener")])
