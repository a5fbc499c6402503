"""What nvcc makes of the CUDA kernels: registers, spills, and instructions per step of a sequence.

    python -m bench.sass                     # compiles for every architecture, prints the table
    python -m bench.sass --write             # and keeps it in results/cuda/code.json and .md
    python -m bench.sass --check             # and fails where a number is larger than kept there
    python -m bench.sass --built FOLDER      # does not compile again what a build has kept there

Needs nvcc and nvdisasm, on the PATH or in the folder ``--tools`` (as pip's packages
``nvidia-cuda-nvcc`` and ``nvidia-cuda-nvdisasm`` lay them). Numbers of another release of nvcc are
not compared, except that no kernel with a number of hidden units of its own may spill, but
for those that are named below. An architecture of which no numbers are kept must compile, no more.

Instructions are counted in the machine code, by loops: that of a step counts once, what surrounds
a segment of steps is shared among them, and loops over outputs count as often as the job needs.
What runs once a sequence (the first step, a last segment that is shorter) does not count. An
estimate of issue slots, not a measurement. In the first mapping they are those of a warp whose
threads have a unit each; in the second, whose threads have whole sequences, they are divided by the
thread's units and targets, so that both compare with the same FMAs.

A build keeps its machine code, and its log tells the registers, where ``NVCC_APPEND_FLAGS`` is
``--keep --keep-dir=FOLDER --threads=1 -Xptxas=-v`` (one thread: messages do not mix) and the output
goes to ``FOLDER/log``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

_NAME = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'")
# Kernel, dtype, solver of a search, number of hidden units.
_KERNEL = re.compile(r"4cuda\d+(\w+?_kernel)I?([fd])?(?:NS0_\d+([A-Za-z]+)E)?(?:Li(\d+))?")
# Whose spilled registers were measured to cost less on a GPU than what they buy: more blocks at
# once, or data fetched ahead (bench/NOTES.md). They may not grow either.
_MAY_SPILL = {("LevenbergMarquardt", 10), ("ThreadInverter", 10), ("ThreadInverter", 20)}
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
_LABEL = re.compile(r"(\.L_x_\d+):")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")

CLASSES = ("FFMA", "other arithmetic", "MUFU", "shared", "memory", "integer", "control")
_CLASS_OF = {
    "FFMA": "FFMA",
    **dict.fromkeys(("FADD", "FMUL", "FSETP", "FSEL", "FMNMX"), "other arithmetic"),
    "MUFU": "MUFU",
    **dict.fromkeys(("LDS", "STS", "LDSM"), "shared"),
    **dict.fromkeys(
        ("LD", "ST", "LDG", "STG", "LDL", "STL", "LDC", "ULDC", "LDCU", "CCTL"), "memory"
    ),
    **dict.fromkeys(("BRA", "BSSY", "BSYNC", "BAR", "WARPSYNC", "NOP", "EXIT", "CALL"), "control"),
}


@dataclass(frozen=True)
class Job:
    """What a search by Adam asks of a step; ``segment`` as search.h chooses it.

    By the second mapping (thread_sequence.h) if ``by_threads``.
    """

    H: int
    O: int
    segment: int
    by_threads: bool = False

    @property
    def kernel(self) -> tuple[str, str, int]:
        """As kernel_of() tells it."""
        solver = "ThreadInverter" if self.by_threads else "Inverter"
        return f"search_kernel of {solver}", "float32", self.H

    @property
    def useful(self) -> int:
        """FMAs of a unit: with W_hh and W_out, forward and back."""
        return 8 * self.H + 2 * self.O

    @property
    def targets(self) -> int:
        """Of a thread that has whole sequences."""
        return 1 if self.H > 10 else 2

    @property
    def share(self) -> int:
        """Outputs of a thread, a segment."""
        return -(-self.segment * self.O // self.H)

    @property
    def outputs(self) -> float:
        """The same, a step."""
        return self.share / self.segment


LETTERS, MNIST = Job(H=10, O=2, segment=10), Job(H=20, O=28, segment=5)
JOBS = {
    "letters": LETTERS,
    "MNIST": MNIST,
    "letters, by threads": replace(LETTERS, by_threads=True),
    "MNIST, by threads": replace(MNIST, by_threads=True),
}


# -- registers, as ptxas tells ---------------------------------------------------------------------


def kernel_of(symbol: str) -> tuple[str, str, int]:
    """Name, dtype and number of hidden units (0: any) of a kernel."""
    found = _KERNEL.search(symbol)
    if found is None:
        raise ValueError(f"not a kernel of micfast: {symbol}")
    dtype = {"f": "float32", "d": "float64", None: ""}[found[2]]
    return f"{found[1]} of {found[3]}" if found[3] else found[1], dtype, int(found[4] or 0)


def parse_ptxas(text: str) -> list[dict[str, Any]]:
    """One row per kernel, from what ``nvcc -Xptxas -v`` printed."""
    rows: list[dict[str, Any]] = []
    for line in text.splitlines():
        if found := _NAME.search(line):
            name, dtype, hidden = kernel_of(found[1])
            rows.append({"kernel": name, "dtype": dtype, "H": hidden})
        elif rows and (found := _SPILLS.search(line)) and "spilled" not in rows[-1]:
            rows[-1]["spilled"] = int(found[1]) + int(found[2])
        elif rows and (found := _REGISTERS.search(line)):
            rows[-1] |= {"registers": int(found[1]), "shared": int(found[2] or 0)}
    return sorted(rows, key=lambda r: (r["kernel"], r["dtype"], r["H"]))


# -- instructions, out of the machine code ---------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """Instructions [first, last] of a kernel."""

    first: int
    last: int

    def holds(self, other: Loop) -> bool:
        """Whether the other lies within, and is another."""
        return self.first <= other.first and other.last <= self.last and self != other


class Code:
    """The instructions of a kernel and its loops."""

    def __init__(self, listing: str) -> None:
        self.lines: list[str] = []
        labels: dict[str, int] = {}
        for line in listing.splitlines():
            if found := _LABEL.match(line.strip()):
                labels[found[1]] = len(self.lines)
            elif found := _INSTRUCTION.search(line):
                self.lines.append(found[1])
        self.jumps = {
            i: labels[found[1]]
            for i, line in enumerate(self.lines)
            if (found := _BRANCH.search(line)) and found[1] in labels
        }
        # Behind the code lie ways round for warps that have parted, which jump back.
        parted = [i for i, line in enumerate(self.lines) if "WARPSYNC.COLLECTIVE" in line]
        end = parted[0] - 3 if parted else len(self.lines)
        back = {Loop(to, i) for i, to in self.jumps.items() if to <= i < end}
        self.loops = sorted(back, key=lambda loop: loop.last - loop.first)

    def count(self, loop: Loop, *names: str) -> int:
        """How many of its instructions have such a name."""
        return sum(
            _operation(line, 2) in names or _operation(line) in names for line in self.of(loop)
        )

    def of(self, loop: Loop) -> list[str]:
        """Its instructions."""
        return self.lines[loop.first : loop.last + 1]

    def within(self, loop: Loop) -> list[Loop]:
        """The loops directly within."""
        inner = [other for other in self.loops if loop.holds(other)]
        return [one for one in inner if not any(other.holds(one) for other in inner)]

    def directly(self, loop: Loop) -> Counter[str]:
        """Classes of what it runs outside of the loops within, without what is rarely run."""
        skipped: set[int] = set()
        for other in self.within(loop):
            skipped.update(range(other.first, other.last + 1))
        for i, to in self.jumps.items():
            if loop.first <= i < to <= loop.last + 1 and i not in skipped:
                passed = [self.lines[j] for j in range(i + 1, to) if j not in skipped]
                # The first step of a sequence, or a division for the last segment.
                if not self.is_step(loop) and any("MUFU.EX2" in x or "I2F" in x for x in passed):
                    skipped.update(range(i + 1, to))
        lines = (self.lines[i] for i in range(loop.first, loop.last + 1) if i not in skipped)
        return Counter(_CLASS_OF.get(_operation(line), "integer") for line in lines)

    def is_step(self, loop: Loop) -> bool:
        """Whether it is the loop over steps, forward or back."""
        inner = self.within(loop)
        return self.count(loop, "MUFU.EX2") in (1, 5) and not any(map(self.is_step, inner))


def _operation(line: str, parts: int = 1) -> str:
    words = line.split()
    word = words[1] if words[0].startswith("@") else words[0]
    return ".".join(word.split(".")[:parts])


def instructions_of_a_step(code: Code, job: Job) -> dict[str, dict[str, float]]:
    """By direction and class: what a warp issues for one step of its sequences."""

    def times(loop: Loop, of_step: bool) -> float:
        """How often a loop runs in a step."""
        fma = code.count(loop, "FFMA")
        if fma >= job.H:
            inner = any(code.count(other, "FFMA") >= job.H for other in code.within(loop))
            return 1 / job.segment if inner else job.outputs
        if fma and code.count(loop, "LDG"):
            return 0  # the input, at the first step
        if fma:
            return -(-job.O // fma)
        return -(-job.O // job.H) if of_step else job.outputs

    def total(loop: Loop, weight: float) -> Counter[str]:
        result = Counter({key: weight * n for key, n in code.directly(loop).items()})
        for other in code.within(loop):
            if not code.is_step(other):
                result.update(total(other, times(other, code.is_step(loop))))
        return result

    result = {}
    for direction, n_exponentials in (("forward", 5), ("backward", 1)):
        steps = [
            loop
            for loop in code.loops
            if code.is_step(loop)
            and code.count(loop, "MUFU.EX2") == n_exponentials
            and code.count(loop, "FFMA") >= 4 * job.H
            and (
                n_exponentials == 1 or any(re.search(r"\bST(\.E)?\.128", x) for x in code.of(loop))
            )
        ]
        if len(steps) != 1:
            raise ValueError(f"{len(steps)} loops look like the {direction} one over steps")
        counts = total(steps[0], 1)
        around = [loop for loop in code.loops if loop.holds(steps[0])]
        # A loop over segments: no other step, and outputs or their gradients beside it.
        if around and sum(map(code.is_step, code.within(around[0]))) == 1:
            exponentials = code.count(around[0], "MUFU.EX2")
            if exponentials in (n_exponentials, 2 * n_exponentials):
                counts.update(total(around[0], 1 / job.segment))
        result[direction] = {key: round(counts[key], 1) for key in CLASSES}
    return result


def instructions_by_threads(code: Code, job: Job) -> dict[str, dict[str, float]]:
    """The same of a thread with whole sequences: its instructions a unit, a target and a step."""
    n = job.targets
    result = {}
    for direction, n_exponentials in (("forward", 5 * n), ("backward", n)):
        units = [
            loop
            for loop in code.loops
            if not code.within(loop)
            and (of_units := code.count(loop, "MUFU.EX2") // n_exponentials)
            and 0 <= code.count(loop, "FFMA") - of_units * 4 * n * job.H <= of_units * 10 * n
            # The forward pass that keeps a tape.
            and (
                direction == "backward"
                or any(re.search(r"^(@\S+ )?STG?(\.E)?\.128", x) for x in code.of(loop))
            )
        ]
        if len(units) != 1:
            raise ValueError(f"{len(units)} loops look like the {direction} one over units")
        step = next(loop for loop in code.loops if loop.holds(units[0]))
        counts = dict.fromkeys(CLASSES, 0.0)

        def add(loop: Loop, times: float, counts: dict[str, float] = counts) -> None:
            for key, found in code.directly(loop).items():
                counts[key] += found * times

        add(step, 1)
        for loop in code.within(step):
            exponentials = code.count(loop, "MUFU.EX2")
            if loop == units[0]:
                add(loop, job.H * n_exponentials / exponentials)
            elif not exponentials:  # not the first step
                inner = code.within(loop)
                add(loop, job.O / job.share if inner else job.O)
                for outputs in inner:
                    add(outputs, job.O)
        result[direction] = {key: round(counts[key] / (n * job.H), 1) for key in CLASSES}
    return result


# -- the table -------------------------------------------------------------------------------------


def code_of(architecture: str, nvcc: str, folder: Path) -> tuple[str, Path]:
    """What ptxas tells and the machine code of an architecture, compiled."""
    cubin = folder / f"{architecture}.cubin"
    options = ["-std=c++17", "-O3", f"-arch={architecture}", "-fmad=false", "-ftz=true"]
    source = str(ROOT / "csrc/cuda/kernels.cu")
    command = [nvcc, *options, "-Xptxas", "-v", "--cubin", source, "-o", str(cubin)]
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode != 0:
        raise RuntimeError(told.stderr[-2000:])
    return told.stdout + told.stderr, cubin


def code_built(architecture: str, folder: Path) -> tuple[str, Path] | None:
    """The same of what a build has kept; None where it was not for this architecture."""
    cubins = list(folder.glob(f"kernels.*_{architecture[3:]}.cubin"))
    if not cubins:
        return None
    parts = re.split(r"^(?=.*Compiling entry function)", (folder / "log").read_text(), flags=re.M)
    told = "".join(part for part in parts if f"for '{architecture}'" in part.partition("\n")[0])
    if not told:
        raise RuntimeError(f"{folder}/log does not tell what ptxas made for {architecture}")
    return told, cubins[0]


def examine(
    architecture: str, nvcc: str, nvdisasm: str, folder: Path, built: Path | None
) -> dict[str, Any]:
    """The numbers of an architecture, compiled if ``built`` does not have it."""
    told, cubin = (built and code_built(architecture, built)) or code_of(architecture, nvcc, folder)
    listing = subprocess.run(
        [nvdisasm, "-c", str(cubin)], capture_output=True, text=True, check=True
    )
    return numbers(told, listing.stdout)


def numbers(ptxas: str, listing: str) -> dict[str, Any]:
    """Of one architecture: kernels, and steps of the jobs."""
    steps = {}
    for part in re.split(r"\n//-+ \.text\.", listing)[1:]:
        name, dtype, hidden = kernel_of(part.split()[0])
        for job, sizes in JOBS.items():
            if (name, dtype, hidden) == sizes.kernel:
                count = instructions_by_threads if sizes.by_threads else instructions_of_a_step
                try:
                    steps[job] = count(Code(part), sizes)
                except ValueError as error:  # a code of another shape: no number, so "gone"
                    print(f"{job}: {error}")
    return {"kernels": parse_ptxas(ptxas), "steps": steps}


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [f"{result['nvcc']}; what was counted: `bench/sass.py`", ""]
    lines += ["| job | architecture | direction | " + " | ".join(CLASSES) + " | sum |"]
    lines += ["| --- | --- | --- |" + " ---: |" * (len(CLASSES) + 1)]
    shares = []
    for architecture, found in result["architectures"].items():
        for job, directions in found["steps"].items():
            total = 0.0
            for direction, counts in directions.items():
                total += sum(counts.values())
                cells = [f"{counts[key]:.0f}" for key in CLASSES] + [f"{sum(counts.values()):.0f}"]
                lines.append(f"| {job} | {architecture} | {direction} | {' | '.join(cells)} |")
            useful = JOBS[job].useful
            shares.append(
                f"| {job} | {architecture} | {useful} | {total:.0f} | {total / useful:.2f} "
                f"| {useful / total:.1%} |"
            )
    lines += [
        "",
        "Of a step, forward and back: no run can use more of the FMA units than the share.",
    ]
    lines += ["", "| job | architecture | useful FMA | instructions | per FMA | share |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |", *shares, ""]
    lines += ["| kernel | dtype | H | architecture | registers | bytes spilled | shared |"]
    lines += ["| --- | --- | ---: | --- | ---: | ---: | ---: |"]
    for architecture, found in result["architectures"].items():
        for row in found["kernels"]:
            lines.append(
                f"| {row['kernel']} | {row['dtype']} | {row['H'] or 'any'} | {architecture} "
                f"| {row['registers']} | {row['spilled']} | {row['shared']} |"
            )
    return "\n".join(lines) + "\n"


def grown(result: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """What is worse than what was kept."""
    found = []
    for architecture, now in result["architectures"].items():
        before = kept["architectures"].get(architecture)
        if before is None:
            continue
        for row in now["kernels"]:
            name = row["kernel"].rpartition(" ")[2], row["H"]
            if row["H"] and row["spilled"] and name not in _MAY_SPILL:
                found.append(f"{architecture}: {row['kernel']}, H={row['H']}, spills")
        if result["nvcc"] != kept["nvcc"]:
            continue
        new, old = _flat(now), _flat(before)
        found += [f"{architecture}: {name} is gone" for name in sorted(old.keys() - new.keys())]
        for name in sorted(new.keys() & old.keys()):
            if new[name] > old[name] + 0.05:
                found.append(f"{architecture}: {name} grew from {old[name]} to {new[name]}")
    return found


def _flat(found: dict[str, Any]) -> dict[str, float]:
    """Every number of an architecture under a name."""
    flat = {
        f"{number} of {row['kernel']}, {row['dtype']}, H={row['H'] or 'any'}": row[number]
        for row in found["kernels"]
        for number in ("registers", "spilled", "shared")
    }
    for job, directions in found["steps"].items():
        for direction, counts in directions.items():
            flat |= {f"{name} of {job}, {direction}": count for name, count in counts.items()}
    return flat


def tool(name: str, folder: Path | None) -> str:
    """Path of a program of the CUDA toolkit."""
    inside = [path for path in folder.rglob(name) if path.is_file()] if folder else []
    path = str(inside[0]) if inside else shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is neither on the PATH nor below --tools")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, and compare or keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", help="default: those of the wheels")
    parser.add_argument("--tools", type=Path, help="a folder to find nvcc and nvdisasm in")
    parser.add_argument("--built", type=Path, help="a folder in which a build kept its code")
    parser.add_argument("--check", action="store_true", help="fail where a number grew")
    parser.add_argument("--write", action="store_true", help="keep the numbers")
    options = parser.parse_args(arguments)
    nvcc, nvdisasm = tool("nvcc", options.tools), tool("nvdisasm", options.tools)
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [\d.]+, V[\d.]+", version)
    architectures = options.arch or ARCHITECTURES
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        found = pool.map(
            lambda a: examine(a, nvcc, nvdisasm, Path(folder), options.built), architectures
        )
        result = {
            "nvcc": f"nvcc {release[0] if release else 'unknown'}",
            "architectures": dict(zip(architectures, found, strict=True)),
        }
    text = table(result)
    print(text)
    path = RESULTS / "cuda" / "code.json"
    if options.write:
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text("# CUDA kernels: what nvcc makes of them\n\n" + text)
    if not options.check:
        return 0
    kept = json.loads(path.read_text())
    if result["nvcc"] != kept["nvcc"]:
        print(f"not compared: kept are the numbers of {kept['nvcc']}")
    worse = grown(result, kept)
    print("\n".join(worse) or "no number grew")
    return int(bool(worse))


if __name__ == "__main__":
    raise SystemExit(main())
