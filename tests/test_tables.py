"""hiptrack.tables: what a spreadsheet, a data frame and a reader get."""

import io
import math
import shutil
import subprocess
import sys

import pandas
import pytest
from latex_tables import bold_cells, plain_rows, read_latex

from hiptrack.tables import as_csv, as_latex, as_markdown, as_text


def test_numbers_read_back_as_numbers():
    text = as_csv(["name", "shift"], [["a", -0.25], ["b", None], ["c", 1e-9]])
    read = pandas.read_csv(io.StringIO(text))
    assert read["shift"].dtype == float
    assert read["shift"][0] == -0.25 and math.isnan(read["shift"][1]) and read["shift"][2] == 1e-9


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_text_that_looks_like_a_formula_is_kept_as_text(text):
    for table in (as_csv(["name"], [[text]]), as_csv([text], [["name"]])):
        assert f'"\'{text}"' in table


def test_any_text_comes_back_as_it_was():
    strange = ['a "b", c', "two\nlines", "a\rb", "", "ümlaut"]
    read = pandas.read_csv(io.StringIO(as_csv(["name"], [[text] for text in strange])), keep_default_na=False)
    assert read["name"].tolist() == strange


def test_a_table_without_rows_has_its_head():
    assert as_csv(["a", "b"], []) == '"a","b"\n'


def test_bars_do_not_split_a_cell_of_markdown():
    assert as_markdown(["a|b"], [["c"]]) == "| a\\|b |\n| --- |\n| c |"


def test_text_is_aligned_to_the_left():
    text = as_text(["run", "AO", "state"], [["a", "-", "x"], ["b", "0.5", "unfinished"]])
    assert text == "run   AO  state\na      -  x\nb    0.5  unfinished"


def test_columns_are_aligned():
    assert as_text(["name", "AO"], [["long name", 0.5], ["b", 12]]) == "name        AO\nlong name  0.5\nb           12"


STRANGE = [r"a_b & 50% $x$ #1 {c} ~d^e \f", "[0.5] x", "*star", "<b>|", "two\nlines", "ümlaut", r"\\", "_best", ""]


def test_a_latex_table_has_rules_and_columns_that_fit():
    text = as_latex(
        ["run", "n", "AO", "state"], [[["a", 3, "0.500", "x"], ["b", 12, "-", ""]], [["c", 1, "0.100", "-"]]]
    )
    alignments, (head, first, second) = read_latex(text)
    assert alignments == "lrrl" and len(head) == 1 and len(first) == 2 and len(second) == 1
    assert plain_rows(text) == [
        ["run", "n", "AO", "state"],
        ["a", "3", "0.500", "x"],
        ["b", "12", "-", ""],
        ["c", "1", "0.100", "-"],
    ]
    assert not bold_cells(text)


def test_any_text_is_escaped_in_latex():
    text = as_latex([*STRANGE[:1], "x"], [[[name, "1"] for name in STRANGE]])
    assert [row[0] for row in plain_rows(text)[1:]] == [" ".join(name.split()) for name in STRANGE]
    assert plain_rows(text)[0][0] == STRANGE[0]


def test_the_best_number_of_a_column_is_bold_in_each_block():
    blocks = [
        [["a", "0.5", "0.540 ± 0.046", "9"], ["b", "0.7", "0.600 ± 0.100", "1"], ["c", "0.7", "-", "2"]],
        [["a", "0.1", "0.3", "3"], ["b", "0.1", "-", "4"]],  # equal, and alone: nothing to compare
    ]
    text = as_latex(["run", "AO", "accuracy", "n"], blocks, best=["AO", "accuracy"])
    assert bold_cells(text) == {(1, 1): "0.7", (2, 1): "0.7", (1, 2): "0.600 ± 0.100"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_takes_the_tables(tmp_path):
    rows = [[name, "0.5 ± 0.1", "-"] for name in STRANGE]
    (tmp_path / "table.tex").write_text(as_latex(["[*", "AO", "P_norm"], [rows, rows[1:], rows[2:]], best=["AO"]))
    document = r"\documentclass{article} \usepackage{booktabs} \begin{document} \input{table.tex} \end{document}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_pandas_and_scikit_learn_are_loaded_when_used_only():
    code = (
        "import sys, hiptrack.training.train, hiptrack.tracking.tracker, hiptrack.evaluation.score, hiptrack.cli.train;"
        "print([name for name in ('pandas', 'sklearn') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
