"Shared fixtures."

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

os.environ.setdefault("MEDLAB_PROGRESS", "off")
os.environ.setdefault("MEDLAB_TRACKING", "off")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def realdata() -> Path:
    "The folder of small real files; tests that need it are skipped where it is not given."
    folder = os.environ.get("MEDLAB_REALDATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDLAB_REALDATA does not name a folder of real files")
    return Path(folder).resolve()


def write_cohort(folder: Path, subjects: int = 4, ticks: int = 900, seed: int = 0) -> Path:
    "A small cohort of invented people in the raw layout: a slow wave, a walk, meals; quick to read and to learn."
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    head = "# tz_handling: stored_in=UTC\n# time_zone: Europe/Stockholm\n"
    for number in range(subjects):
        place = folder / f"pump_{100 + number}" / "raw"
        place.mkdir(parents=True)
        times = pd.date_range("2024-03-01", periods=ticks, freq="5min").strftime("%Y-%m-%d %H:%M:%S")
        wave = 150 + 40 * np.sin(np.arange(ticks) / 40 + number) + np.cumsum(rng.normal(0, 2, ticks)) * 0.5
        rows = [f"{t},{v:.0f}" for t, v in zip(times, wave.clip(45, 395), strict=True)]
        (place / "raw_cgm_20240301.csv").write_text(head + "timestamp,bg\n" + "\n".join(rows) + "\n")
        (place / "raw_basal_20240301.csv").write_text(head + f"timestamp,basal_rate\n{times[0]},0.8\n")
        meals = "".join(f"{times[i]},4.0,50\n" for i in range(60, ticks, 90))
        (place / "raw_bolus_20240301.csv").write_text(head + "timestamp,bolus_dose,carbs\n" + meals)
    people = "".join(f"S{n},{20 + 15 * n},{'FM'[n % 2]}\n" for n in range(subjects))
    (folder / "subjects.csv").write_text("subject,age,sex\n" + people)
    (folder / "pumps.csv").write_text(
        "pump_serial,subject\n" + "".join(f"{100 + n},S{n}\n" for n in range(subjects))
    )
    return folder


def loaded(modules: list[str], heavy: tuple[str, ...]) -> list[str]:
    "Which of the heavy packages a fresh Python holds after importing these modules."
    code = (
        f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*[m for m in {heavy!r} if m in sys.modules])"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def wait_until(condition, what: str, seconds: float = 300, process=None, log: Path | None = None):
    """What `condition()` returned when it first held; AssertionError says what never happened.

    It asks again and again for a generous time: a busy machine is slow, and a test is no clock. Where a `process`
    (subprocess.Popen) is to make it happen, its end ends the waiting at once, with what it wrote to the file `log`
    or to pipes that nobody else reads.
    """
    limit = time.monotonic() + seconds
    while True:
        ended = (
            process is not None and process.poll() is not None
        )  # asked first: the last word is the condition's
        if found := condition():
            return found
        if ended or time.monotonic() > limit:
            why = f"its process ended with {process.returncode}" if ended else f"waited for {seconds:g} s"
            parts = [log.read_bytes()] if log and log.exists() else []
            if ended and not parts:
                parts = [pipe.read() for pipe in (process.stdout, process.stderr) if pipe]
            said = "".join(part if isinstance(part, str) else part.decode(errors="replace") for part in parts)
            raise AssertionError(f"{what}: never happened, {why}\n{said[-4000:]}")
        time.sleep(0.02)
