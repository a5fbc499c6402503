"""The check of the CUDA kernels' code fails where a number grows."""

from __future__ import annotations

import copy

import pytest

from bench import sass

PTXAS = """
ptxas info    : Compiling entry function \
'_ZN7micfast4cuda13search_kernelIfNS0_8InverterELi10ENS_13InvertProblemIfEEEEvT2_' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 16 bytes smem
"""


def listing(name, lines):
    """As nvdisasm prints a kernel; a line with a colon is a label."""
    code = (x if x.endswith(":") else f"        /*0000*/    {x} ;" for x in lines)
    return "\n//----- .text." + name + " -----\n" + "\n".join(code)


# Two loops over segments: outputs beside the steps, and steps with the outputs' gradients.
FORWARD = [
    *(".L_x_1:", ".L_x_2:", *["FFMA R1, R1, R1, R1"] * 40, *["MUFU.EX2 R1, R1"] * 5),
    *("ST.E.128 [R1], R2", "@!P1 BRA `(.L_x_2)"),
    *(".L_x_3:", ".L_x_4:", *["FFMA R1, R1, R1, R1"] * 10, "LDS R1, [R2]", "@P1 BRA `(.L_x_4)"),
    *("IADD3 R1, R1, R1", "@P1 BRA `(.L_x_3)", "IADD3 R1, R1, R1", "@P2 BRA `(.L_x_1)"),
]
BACKWARD = [
    *(".L_x_5:", ".L_x_6:", *["FFMA R1, R1, R1, R1"] * 40, "MUFU.EX2 R1, R1"),
    *(".L_x_7:", *["FFMA R1, R1, R1, R1"] * 4, "@P1 BRA `(.L_x_7)", "@P1 BRA `(.L_x_6)"),
    *("IADD3 R1, R1, R1", "@P1 BRA `(.L_x_5)", "EXIT"),
]
NAME = "_ZN7micfast4cuda13search_kernelIfNS0_8InverterELi10ENS_13InvertProblemIfEEEEvT2_"


@pytest.fixture
def result():
    found = sass.numbers(PTXAS, listing(NAME, FORWARD + BACKWARD))
    return {"nvcc": "nvcc release 13.0", "architectures": {"sm_90": found}}


def test_loops_count_as_often_as_they_run(result):
    found = result["architectures"]["sm_90"]
    kernel = {"kernel": "search_kernel of Inverter", "dtype": "float32", "H": 10}
    assert found["kernels"] == [kernel | {"spilled": 0, "registers": 168, "shared": 16}]
    forward, backward = found["steps"]["letters"].values()
    # 20 outputs of a segment of 10 steps are two for each of 10 threads: 0.2 a step.
    assert forward["FFMA"] == 40 + 0.2 * 10
    assert forward["shared"] == 0.2
    assert forward["MUFU"] == 5
    assert forward["integer"] == 0.2  # two in a segment
    assert backward["FFMA"] == 40 + 4  # two outputs fit into four
    assert "letters" in sass.table(result)


# Two units in the body of a loop; the first step, and two loops over outputs, one in the other.
BY_THREADS = [
    *(".L_x_1:", ".L_x_2:", *["FFMA R1, R1, R1, R1"] * 160, *["MUFU.EX2 R1, R1"] * 20),
    *("STG.E.128 desc[UR26][R14.64], R4", "@P0 BRA `(.L_x_2)"),
    *(".L_x_3:", *["MUFU.EX2 R1, R1"] * 10, "@P0 BRA `(.L_x_3)"),
    *(".L_x_4:", ".L_x_5:", *["FFMA R1, R1, R1, R1"] * 22, "LDS R1, [R2]", "@P1 BRA `(.L_x_5)"),
    *("STS R1, [R2]", "@P1 BRA `(.L_x_4)", "IADD3 R1, R1, R1", "@P2 BRA `(.L_x_1)"),
    *(".L_x_6:", ".L_x_7:", *["FFMA R1, R1, R1, R1"] * 20, "@P1 BRA `(.L_x_7)"),
    *(".L_x_8:", *["FFMA R1, R1, R1, R1"] * 80, *["MUFU.EX2 R1, R1"] * 2, "@P0 BRA `(.L_x_8)"),
    *("@P2 BRA `(.L_x_6)", "EXIT"),
]


def test_a_thread_s_instructions_are_those_of_a_unit_and_a_target():
    name = NAME.replace("8Inverter", "14ThreadInverter")
    steps = sass.numbers("", listing(name, BY_THREADS))["steps"]
    forward, backward = steps["letters, by threads"].values()
    n = 10 * sass.JOBS["letters, by threads"].targets
    assert forward["FFMA"] == (5 * 160 + 2 * 22) / n  # 10 units, two outputs
    assert forward["memory"] == round(5 / n, 1)
    assert forward["shared"] == round((2 + 1) / n, 1)  # two outputs are one sum's
    assert backward["FFMA"] == (10 * 80 + 2 * 20) / n


@pytest.mark.parametrize("number", ["registers", "spilled", "shared"])
def test_a_kernel_that_grows_is_told(result, number):
    now = copy.deepcopy(result)
    assert sass.grown(now, result) == []
    now["architectures"]["sm_90"]["kernels"][0][number] += 1
    assert any(number in line or "spills" in line for line in sass.grown(now, result))
    result["architectures"]["sm_90"]["kernels"][0][number] += 2  # better than kept is well
    assert [line for line in sass.grown(now, result) if "grew" in line] == []


def test_a_step_that_grows_or_is_not_found_is_told(result):
    now = copy.deepcopy(result)
    now["architectures"]["sm_90"]["steps"]["letters"]["backward"]["integer"] += 1
    assert len(sass.grown(now, result)) == 1
    lost = {"sm_90": sass.numbers(PTXAS, listing(NAME, FORWARD))}
    assert "gone" in sass.grown(result | {"architectures": lost}, result)[0]


def test_what_a_build_kept_is_told_apart(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "[1/2] Building\n" + PTXAS.replace("sm_90", "sm_80").replace("168", "32") + PTXAS
    )
    for name in ("kernels.compute_90", "kernels.compute_100.sm_100"):
        (tmp_path / f"{name}.cubin").touch()
    told, cubin = sass.code_built("sm_90", tmp_path)
    assert cubin.name == "kernels.compute_90.cubin"
    assert sass.parse_ptxas(told) == sass.parse_ptxas(PTXAS)
    assert sass.code_built("sm_80", tmp_path) is None
    with pytest.raises(RuntimeError, match="does not tell what ptxas made for sm_100"):
        sass.code_built("sm_100", tmp_path)
