from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_hub_bridge.provenance.card_edits import Conflict, lines_of, merge_edits


BEFORE = """---
license: mit
---

# folder

A classifier.

## Is it the same model?

Not measured.

## How it was made

By a command.
"""
NEW = BEFORE.replace("Not measured.", "Yes.\n\n| check | result |\n|---|---|\n| weights | equal |").replace(
    "license: mit\n", "license: mit\nmodel-index: measured\n"
)


def _merge(edited: str, new: str = NEW) -> str:
    merged = merge_edits(lines_of(BEFORE), edited, new)
    assert merged.conflicts == []
    return merged.text


@pytest.mark.parametrize(
    ("lines", "edited_lines"),
    [
        pytest.param("A classifier.", "A classifier of reviews.", id="a changed line"),
        pytest.param("A classifier.\n\n", "", id="a deleted paragraph"),
        pytest.param("A classifier.\n", "A classifier.\n\n## Training\n\nOn reviews.\n", id="a section in the middle"),
        pytest.param("## Is it", "## Training\n\nOn reviews.\n\n## Is it", id="a section before the results"),
        pytest.param("By a command.\n", "By a command.\n\nWrite to me.\n", id="a paragraph at the end"),
        pytest.param("---\n\n#", "datasets: reviews\n---\n\n#", id="metadata where the results have some too"),
        pytest.param("license: mit", "license: apache-2.0", id="metadata"),
    ],
)
def test_edits_stay_and_results_come(lines: str, edited_lines: str) -> None:
    assert lines in BEFORE
    merged = _merge(BEFORE.replace(lines, edited_lines))
    assert edited_lines.strip("-# \n") in merged
    assert lines in edited_lines or lines not in merged
    assert "Yes.\n\n| check | result |\n|---|---|\n| weights | equal |\n" in merged
    assert "model-index: measured\n" in merged
    assert "Not measured." not in merged


@pytest.mark.parametrize(
    "edited", ["{}\n\nI compared it myself.", "I compared it myself.\n\n{}"], ids=["after", "before"]
)
def test_text_beside_a_changed_line_stays(edited: str) -> None:
    line = "Not measured."
    new = NEW.replace("Yes.\n\n| check | result |\n|---|---|\n| weights | equal |", "Yes.")
    assert _merge(BEFORE.replace(line, edited.format(line)), new) == new.replace("Yes.", edited.format("Yes."))


def test_an_edit_of_a_changed_line_is_a_conflict() -> None:
    merged = merge_edits(lines_of(BEFORE), BEFORE.replace("Not measured.", "It is the same."), NEW)
    assert merged.conflicts == [Conflict(11, ["It is the same."], NEW.split("\n")[11:16])]
    assert "line 11\n    has     It is the same." in merged.describe_conflicts()
    # Writing what should be there ends it.
    assert _merge(NEW.replace("A classifier.", "My classifier.")) == NEW.replace("A classifier.", "My classifier.")


def test_a_deletion_of_a_changed_line_is_a_conflict() -> None:
    merged = merge_edits(lines_of(BEFORE), BEFORE.replace("Not measured.\n\n", ""), NEW)
    assert [conflict.edited for conflict in merged.conflicts] == [[]]


def test_a_title_of_ones_own_stays_on_a_hub() -> None:
    edited = BEFORE.replace("# folder", "# My classifier")
    assert _merge(edited, NEW.replace("# folder", "# repository")) == NEW.replace("# folder", "# My classifier")
    assert _merge(BEFORE, NEW.replace("# folder", "# repository")) == NEW.replace("# folder", "# repository")


def test_a_key_that_both_added_is_a_conflict() -> None:
    edited = BEFORE.replace("license: mit", "model-index: mine\nlicense: mit")
    merged = merge_edits(lines_of(BEFORE), edited, NEW)
    assert "should be model-index once" in merged.describe_conflicts()


def test_a_card_is_not_merged_with_one_that_nobody_knows() -> None:
    assert merge_edits([], BEFORE, BEFORE).conflicts == []
    assert len(merge_edits([], BEFORE, NEW).conflicts) == 1
    assert merge_edits([], "", NEW).text == NEW


CARDS = st.lists(st.sampled_from(["a", "b", "", "## c", "| d |"]), min_size=1, max_size=12).map(
    lambda lines: "\n".join([*lines, "end"]) + "\n"
)


@given(before=CARDS, one=CARDS, other=CARDS)
def test_merging_loses_nothing(before: str, one: str, other: str) -> None:
    assert merge_edits(lines_of(before), before, other).text == other
    assert merge_edits(lines_of(before), one, before).text == one
    assert merge_edits(lines_of(before), one, one).text == one
    merged = merge_edits(lines_of(before), one, other)
    own = {line: one.count(line) for line in lines_of(one) if line and line not in before}
    if not merged.conflicts:
        assert all(line in merged.text for line in own)
