"""What portable arithmetic costs: training under several settings, alone and on a busy machine, and every stage both ways.

Writes benchmarks/arithmetic.md. Run by `make benchmarks`; `--stages` also times the stages of both studies (twenty minutes).
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from medlab.core.arithmetic import settings
from medlab.core.project import section
from medlab.run.unfinished import STAGES

ROOT = Path(__file__).resolve().parents[1]
NETWORK = """
import time, torch
from medlab.studies.glucose.model import Forecaster
from medlab.shape.scaling import RobustScaler
lookback, hidden = {lookback}, {hidden}
torch.manual_seed(0)
scaler = RobustScaler(tuple(["bg"] + [f"f{{i}}" for i in range(7)]), (140.0,) + (0.0,) * 7, (70.0,) + (1.0,) * 7, 1, "")
network = Forecaster(scaler, hidden=hidden)
step = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
x, y, done, began = torch.randn(128, lookback, 8), torch.randn(128, 12), 0, time.perf_counter()
while time.perf_counter() - began < {seconds}:
    step.zero_grad()
    (network(x) - y).abs().mean().backward()
    step.step()
    done += 128
print(done / (time.perf_counter() - began))
"""
WAYS = {  # what it is called -> environment
    "fast, a thread for each core": {"OMP_NUM_THREADS": str(os.cpu_count())},
    "the same, waiting threads asleep": {
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "OMP_WAIT_POLICY": "passive",
    },
    "fast, one thread": {"OMP_NUM_THREADS": "1"},
    "portable": settings("portable"),
}


@contextmanager
def busy(processes: int):
    "So many processes that do nothing but compute."
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def windows_per_second(lookback: int, hidden: int, how: dict, seconds: float) -> float:
    "Training throughput in a process with this environment, over `seconds`."
    code = NETWORK.format(lookback=lookback, hidden=hidden, seconds=seconds)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | how,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def stage_seconds(study: str, way: str, folder: Path) -> dict[str, float]:
    "Wall time of each stage of a study, in folders of their own."
    found = {}
    for stage in STAGES:
        began = time.perf_counter()
        asked = [f"-p=artifacts={folder}/{study}-{way}", f"-p=reports={folder}/reports/{study}-{way}"]
        subprocess.run(
            ["medlab-run", study, stage, "--arithmetic", way, *asked],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        found[stage] = time.perf_counter() - began
    return found


def main(stages: bool, seconds: float) -> None:
    lines = [
        "# What portable arithmetic costs",
        "",
        "Written by `benchmarks/arithmetic.py` in one run on one machine. Ratios travel, seconds don't.",
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "## Training the glucose network",
        "",
        "Forward, backward and step, 64 units, 36 ticks of lookback; *busy*: with eight processes beside it that do nothing but compute.",
        "",
        "| setting | windows a second | of the first | busy | of the first |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rates = {}
    for name, how in WAYS.items():
        quiet = windows_per_second(36, 64, how, seconds)
        with busy(8):
            rates[name] = [quiet, windows_per_second(36, 64, how, 2 * seconds)]
    first = next(iter(rates.values()))
    for name, values in rates.items():
        cells = [f"{v:,.0f} | {v / f:.2f}" for v, f in zip(values, first, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if stages:
        lines += [
            "",
            "## Every stage, both ways",
            "",
            "| stage | portable, s | fast, s | ratio |",
            "| --- | ---: | ---: | ---: |",
        ]
        (ROOT / ".medlab").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT / ".medlab") as folder:
            for study in section("studies"):
                both = {way: stage_seconds(study, way, Path(folder)) for way in ("portable", "fast")}
                for stage in STAGES:
                    slow, quick = both["portable"][stage], both["fast"][stage]
                    lines.append(f"| {study} {stage} | {slow:.0f} | {quick:.0f} | {slow / quick:.2f} |")
                slow, quick = (sum(both[way].values()) for way in ("portable", "fast"))
                lines.append(f"| **{study}** | {slow:.0f} | {quick:.0f} | {slow / quick:.2f} |")
    (ROOT / "benchmarks" / "arithmetic.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--seconds", type=float, default=6.0)
    told = parser.parse_args()
    main(told.stages, told.seconds)
