"""Drop-ins from the field (issue 14): each script of ``cases/dropin_*.py`` exits with 0.

Copies in which only calls were changed to today's names. Number 24, a timing, is in ``bench/``.
"""

import runpy
from pathlib import Path

import pytest
import torch

CASES = sorted((Path(__file__).parent / "cases").glob("dropin_*.py"))


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_cases_are_here():
    numbers = ["01", "03", "05", "07", "09", "12", "14", "17", "19", "20", "21", "23"]
    assert [case.name.split("_")[1] for case in CASES] == numbers


@pytest.mark.usefixtures("_threads")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case, capsys):
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(case), run_name="__main__")
    assert not ended.value.code, capsys.readouterr().out
