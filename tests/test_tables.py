"""hiptrack.tables: what a spreadsheet, a data frame and a reader get."""

import io
import math
import subprocess
import sys

import pandas
import pytest

from hiptrack.tables import as_csv, as_markdown, as_text


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


def test_pandas_and_scikit_learn_are_loaded_when_used_only():
    code = (
        "import sys, hiptrack.training.train, hiptrack.tracking.tracker, hiptrack.evaluation.score, hiptrack.cli.train;"
        "print([name for name in ('pandas', 'sklearn') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
