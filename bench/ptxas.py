"""Registers, shared memory and spills of the CUDA kernels, from what ``nvcc -Xptxas -v`` printed.

    nvcc -std=c++17 -O3 -arch=sm_90 -fmad=false -ftz=true -Xptxas -v -c csrc/cuda/kernels.cu \
        -o /dev/null 2> ptxas.txt
    python bench/ptxas.py ptxas.txt

Exits with 1 where a kernel with its number of hidden units as a template parameter spills.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_NAME = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'")
# Kernel, dtype, solver of a search, number of hidden units.
_KERNEL = re.compile(r"4cuda\d+(\w+?_kernel)I?([fd])?(?:NS0_\d+([A-Za-z]+)E)?(?:Li(\d+))?")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def parse(text: str) -> list[dict[str, object]]:
    """One row per kernel."""
    rows: list[dict[str, object]] = []
    for line in text.splitlines():
        if found := _NAME.search(line):
            kernel = _KERNEL.search(found[1])
            if kernel is None:
                raise ValueError(f"not a kernel of micfast: {found[1]}")
            dtype = {"f": "float32", "d": "float64", None: ""}[kernel[2]]
            name = f"{kernel[1]} of {kernel[3]}" if kernel[3] else kernel[1]
            rows.append({"kernel": name, "dtype": dtype, "H": int(kernel[4] or 0)})
            rows[-1]["architecture"] = found[2]
        elif rows and (found := _SPILLS.search(line)) and "spilled" not in rows[-1]:
            rows[-1]["spilled"] = int(found[2]) + int(found[3])
        elif rows and (found := _REGISTERS.search(line)):
            rows[-1]["registers"] = int(found[1])
    return rows


def main() -> int:
    """Print the table."""
    rows = parse(Path(sys.argv[1]).read_text())
    if not rows:
        print(f"{sys.argv[1]} names no kernel; was it made with -Xptxas -v?")
        return 1
    print("| kernel | dtype | H | architecture | registers | bytes spilled |")
    print("| --- | --- | ---: | --- | ---: | ---: |")
    for row in sorted(rows, key=lambda r: (str(r["kernel"]), str(r["dtype"]), str(r["H"]))):
        print(
            f"| {row['kernel']} | {row['dtype']} | {row['H'] or 'any'} | {row['architecture']} "
            f"| {row['registers']} | {row['spilled']} |"
        )
    return int(any(row["H"] and row["spilled"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
