"""Two million patient-years and more: seconds, and peak memory of each process, in this process and with Dask workers.

    python benchmarks/patient_years.py FOLDER --patients 400000 --processes 0 2

Each stage runs as a process of its own, as a user would start it, and is watched from outside: the resident memory of it and of each
of its worker processes, twenty times a second. Where there
are workers, one of them is killed (signal 9) on the way, and the bytes must be the same. Results are added to
benchmarks/patient_years.md. Needs about 100 MB of disk for each 400,000 patients, number of processes and
stage; the folder's data are deleted afterwards unless --keep is given.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from medlab.core.files import digest

RESULTS = Path(__file__).with_name("patient_years.md")
HEAD = """# Patient-years by the million

Written by `python benchmarks/patient_years.py`. *peak* is the largest resident memory of the process that was started, and of the largest of
its workers; MiB. *digest* is of everything that the stage wrote: equal digests are equal files, bit for bit. Where there are
workers, one of them is killed -9 on the way. Rows of `prepare` are those used.

| stage | patients | rows | worker processes | killed | seconds | peak, MiB | peak of a worker, MiB | digest |
| --- | --: | --: | --: | --- | --: | --: | --: | --- |
"""


def watched(command: list[str], kill_when=None) -> dict:  # seconds, peak and worker (MiB), killed (workers)
    "Run a command and watch its memory and that of its children, of which the largest is killed -9 once `kill_when()` says so."
    start, peaks, killed = time.monotonic(), {}, 0
    process = psutil.Popen(command)
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in family:
            try:
                peaks[member.pid] = max(peaks.get(member.pid, 0), member.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        if kill_when and not killed and family[1:] and kill_when():
            max(family[1:], key=lambda member: peaks.get(member.pid, 0)).kill()
            killed = 1
        time.sleep(0.05)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    seconds, own = time.monotonic() - start, peaks.pop(process.pid)
    return {
        "seconds": seconds,
        "peak": own / 2**20,
        "worker": max(peaks.values(), default=0) / 2**20,
        "killed": killed,
    }


def rows_of(folder: Path) -> int:
    "Rows of all Parquet files, from their footers."
    return sum(pq.read_metadata(file).num_rows for file in sorted(folder.rglob("*.parquet")))


def simulate(folder: Path, patients: int, processes: int) -> dict:
    "Stage 1: the cohort, its truth and the oracle's scores; where there are workers, one of them is killed -9 on the way."
    data = folder / f"data-{processes}"
    shutil.rmtree(data, ignore_errors=True)
    command = [sys.executable, "-m", "medlab.studies.risk.simulate", str(data), "--patients", str(patients)]
    begun = lambda: any(data.glob("patient_years/part-*"))
    seen = watched([*command, "--processes", str(processes)], begun if processes else None)
    return seen | {"rows": rows_of(data / "patient_years"), "digest": digest(data)}


PREPARE = """
import sys
from medlab.core.spread import workers
from medlab.studies.risk.prepare import prepare
if __name__ == "__main__":
    with workers(processes=int(sys.argv[3])) as spread:
        prepare(sys.argv[1], sys.argv[2], spread=spread)
"""


def prepare(folder: Path, patients: int, processes: int) -> dict:
    "Stage 2: features and splits; where there are workers, one of them is killed -9 on the way."
    made, script = folder / f"prepared-{processes}", folder / "prepare.py"
    shutil.rmtree(made, ignore_errors=True)
    script.write_text(PREPARE)
    halfway = lambda: len(list(folder.glob(f".{made.name}-*/draft-*.json"))) >= 3
    command = [sys.executable, str(script), str(folder / f"data-{processes}"), str(made), str(processes)]
    seen = watched(command, halfway if processes else None)
    if processes and not seen["killed"]:
        raise RuntimeError("no worker was killed: there were fewer than three parts; give it more patients")
    seen |= {"rows": rows_of(made / "rows"), "digest": digest(made)}
    shutil.rmtree(made)
    return seen


STAGES = {"simulate": simulate, "prepare": prepare}


def note(stage: str, patients: int, processes: int, seen: dict) -> None:
    "Add a line to the results."
    if not RESULTS.exists():
        RESULTS.write_text(HEAD)
    worker = f"{seen['worker']:.0f}" if processes else ""
    line = f"| {stage} | {patients:,} | {seen['rows']:,} | {processes} | {'one' if seen['killed'] else ''} | {seen['seconds']:.0f} | {seen['peak']:.0f} | {worker} | {seen['digest'][:12]} |\n"
    with RESULTS.open("a") as file:
        file.write(line)
    sys.stdout.write(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the data; deleted afterwards")
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 2], help="0: no workers")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--keep", action="store_true", help="leave the data there")
    given = parser.parse_args()
    digests = {}
    for processes in given.processes:
        for stage in given.stages:
            seen = STAGES[stage](given.folder, given.patients, processes)
            note(stage, given.patients, processes, seen)
            if digests.setdefault(stage, seen["digest"]) != seen["digest"]:
                raise SystemExit(f"{stage}: other bytes with {processes} worker processes")
        if not given.keep:
            shutil.rmtree(given.folder / f"data-{processes}", ignore_errors=True)


if __name__ == "__main__":
    main()
