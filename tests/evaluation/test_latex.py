"""Tables for papers: what LaTeX reads, without a LaTeX to read it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcsr_lightning.evaluation.latex import escape, tabular
from pcsr_lightning.evaluation.tables import Column, DataTable


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 50 %", r"a\_b \& 50 \%"),
        (r"C:\x {1} #2 $3", r"C:\textbackslash{}x \{1\} \#2 \$3"),
        ("~/x^2 < y", r"\textasciitilde{}/x\textasciicircum{}2 \textless{} y"),
        ("28.953 +- 0.012", r"28.953 $\pm$ 0.012"),
        ("k = -0.5", "k = $-$0.5"),
        ("-12.3", "$-$12.3"),
        ("[-1,0]", "[$-$1,0]"),
        ("stage-2, 2026-01-02, 1e-05", "stage-2, 2026-01-02, 1e-05"),
    ],
)
def test_escapes(text: str, latex: str) -> None:
    assert escape(text) == latex


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"])))
def test_nothing_is_left_that_latex_would_obey(text: str) -> None:
    known = r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$\\pm\$|\$-\$"
    assert not re.search(r"[\\&%$#_{}~^]", re.sub(known, "", escape(text)))


def test_a_table() -> None:
    text = tabular(["", "PSNR, dB"], "lr", [[["bicubic", "26.50"]], [["a_b", "-"]]], "Set5, 50 %")
    assert text.splitlines() == [
        "% Set5, 50 %",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & PSNR, dB \\",
        r"\midrule",
        r"bicubic & 26.50 \\",
        r"\midrule",
        r"a\_b & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_bracket_is_no_argument_of_the_line_before() -> None:
    assert r"{}[2,4] & 1 \\" in tabular(["scale", "n"], "lr", [[["[2,4]", "1"]]])


def test_csv_has_what_the_table_shows_in_full_precision() -> None:
    columns = [
        Column[float]("half", lambda x: f"{x / 2:.1f}", value=lambda x: x / 2, key="half_of_it"),
        Column("known", lambda x: "-" if x > 2 else "yes", "left"),
        Column("more", lambda x: "", value=lambda x: x if x > 2 else float("nan"), csv_only=True),
    ]
    table = DataTable(columns, [[1.23456], [], [9.5]], "numbers")
    assert table.csv() == "half_of_it,known,more\n0.61728,yes,\n4.75,,9.5\n"
    assert r"0.6 & yes \\" in table.latex()
    assert "more" not in table.latex()
    assert table.latex().count(r"\midrule") == 2
