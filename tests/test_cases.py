"""The cases from the field (kinds of issue 16): each script of ``cases/`` exits with 0.

They are copies in which only the calls were changed to today's names, never what is expected.
"""

import runpy
from pathlib import Path

import pytest

from micfast.kernels import backend

CASES = sorted((Path(__file__).parent / "cases").glob("[0-9]*.py"))
# Many trainings; or commands in processes of their own, which import torch first.
LONG = ("01", "03", "06", "09", "16")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(backend.extension is None, reason="many trainings: minutes without kernels"),
]


def test_all_cases_are_here():
    expected = ["01", "03", "05", "06", "07", "09", "10", "12", "14", "16", "18", "22"]
    assert [case.name[:2] for case in CASES] == expected


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.stem, marks=[pytest.mark.slow] * case.name.startswith(LONG))
        for case in CASES
    ],
)
def test_case(case, capsys):
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(case), run_name="__main__")
    assert not ended.value.code, capsys.readouterr().out
