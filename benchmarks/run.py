"Measure medlab against what one would use instead, in one run; writes benchmarks/results.md. Run by `make benchmarks`."

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
os.environ["MEDLAB_PROGRESS"] = "off"


def seconds(function, repeats=3):
    "Best of several runs."
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def command(*words, repeats=3, **settings):
    "Best wall time of a command."
    return seconds(
        lambda: subprocess.run(words, cwd=ROOT, check=True, capture_output=True, **settings), repeats
    )


def training(lookback, hidden, batch_size=128, n_windows=2560):
    "Windows per second, forward, backward and step: gathered on the device, and fed by a DataLoader."
    import torch
    from torch.utils.data import DataLoader, Dataset

    from medlab.learn.batches import Batches
    from medlab.learn.lightning import masked_l1
    from medlab.shape.scaling import RobustScaler
    from medlab.shape.windows import Windows
    from medlab.studies.glucose.model import Forecaster

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    series = rng.normal(size=(50_000, 8)).astype(np.float32)
    windows = Windows(
        series, series[:, 0].astype(float), np.sort(rng.integers(lookback, 49_000, n_windows)), lookback, 12
    )
    scaler = RobustScaler(
        tuple(["bg"] + [f"f{i}" for i in range(7)]), (140.0,) + (0.0,) * 7, (70.0,) + (1.0,) * 7, 1, ""
    )

    class OneWindow(Dataset):
        "What most projects write."

        def __len__(self):
            return len(windows)

        def __getitem__(self, i):
            end = windows.ends[i]
            x, y = (
                series[end - lookback + 1 : end + 1],
                windows.targets[end + 1 : end + 13].astype(np.float32),
            )
            return torch.from_numpy(x), torch.from_numpy(y)

    def epoch(batches):
        torch.manual_seed(0)
        network = Forecaster(scaler, hidden=hidden).to(device)
        optimizer = torch.optim.Adam(network.parameters())
        for x, y in batches:
            optimizer.zero_grad()
            masked_l1(network(x.to(device)), y.to(device)).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def feed(batches):
        for x, y in batches:
            x.to(device), y.to(device)

    ours = Batches(windows, batch_size, shuffle_seed=0, device=device)
    rows = []
    feeds = {
        "gathered on the device (medlab)": ours,
        "DataLoader, 0 workers": DataLoader(OneWindow(), batch_size, shuffle=True),
    }
    feeds["DataLoader, 2 workers"] = DataLoader(OneWindow(), batch_size, shuffle=True, num_workers=2)
    for name, batches in feeds.items():
        rows.append(
            (
                name,
                n_windows / seconds(lambda b=batches: epoch(b), 2),
                n_windows / seconds(lambda b=batches: feed(b), 2),
            )
        )
    return device, rows


def stage_overhead():
    "The prepare stage through the notebook route, by papermill alone, and as a plain function call in a fresh process."
    with tempfile.TemporaryDirectory() as folder:
        artifacts = f"artifacts={folder}/a"
        route = command(
            "medlab-run", "glucose", "prepare", "-p", artifacts, "-p", f"reports={folder}/r", repeats=2
        )
        pair = [
            "-p",
            "artifacts",
            f"{folder}/c",
            "-p",
            "data",
            str(ROOT / "data/glucose"),
            "--log-level",
            "ERROR",
        ]
        plain = command(
            sys.executable,
            "-m",
            "papermill",
            "nbs/stages/glucose/prepare.ipynb",
            f"{folder}/out.ipynb",
            *pair,
            repeats=2,
        )
        code = f"from medlab.studies.glucose.prepare import prepare; prepare('data/glucose', 'pump_folders', '{folder}/b')"
        direct = command(sys.executable, "-c", code, repeats=2)
    return route, plain, direct


def main():
    lines = [
        "# Benchmarks",
        "",
        "Written by `make benchmarks`; every figure below comes from one run on one machine. Ratios travel, seconds don't.",
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "## Feeding a network with windows",
        "",
        "The same network and the same windows, fed by medlab's batches and by a PyTorch `DataLoader` over a `Dataset` that cuts",
        "one window at a time. *Training* is forward, backward and step; *feeding* is the batches alone.",
        "",
        "| lookback x units | device | feed | training, windows/s | ratio | feeding alone, windows/s | ratio |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for lookback, hidden in ((36, 64), (288, 128)):
        device, rows = training(lookback, hidden, n_windows=2560 if lookback < 100 else 640)
        for name, trained, fed in rows:
            ours = rows[0]
            ratio = f"{ours[1] / trained:.2f}" if name != rows[0][0] else "1"
            alone = f"{ours[2] / fed:.1f}" if name != rows[0][0] else "1"
            lines.append(
                f"| {lookback} x {hidden} | {device} | {name} | {trained:,.0f} | {ratio} | {fed:,.0f} | {alone} |"
            )
    route, plain, direct = stage_overhead()
    lines += [
        "",
        "Ratio: how many times faster medlab's batches are than that row.",
        "",
        "## What the notebook route costs",
        "",
        "| the `prepare` stage | seconds | over the direct call |",
        "| --- | ---: | ---: |",
        f"| function call in a fresh Python process | {direct:.1f} | |",
        f"| `medlab-run` (papermill, scrubbed notebook, HTML page, figures) | {route:.1f} | +{route - direct:.1f} |",
        f"| `papermill` command (no scrubbing, no page) | {plain:.1f} | +{plain - direct:.1f} |",
        "",
        "## Doing nothing, quickly",
        "",
        "| | seconds |",
        "| --- | ---: |",
    ]
    lines.append(f"| `dvc repro` with nothing to do | {command('dvc', 'repro', repeats=2):.1f} |")
    bare, light = (
        command(sys.executable, "-c", "pass"),
        command(sys.executable, "-c", "import medlab, medlab.core.project"),
    )
    lines.append(f"| `import medlab` beyond an empty Python ({bare:.2f} s) | {light - bare:.2f} |")
    torch_time = command(sys.executable, "-c", "import torch") - bare
    lines.append(f"| for comparison: `import torch` | {torch_time:.2f} |")
    (ROOT / "benchmarks" / "results.md").write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
