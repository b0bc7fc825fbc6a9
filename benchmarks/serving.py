"Requests per second, waiting times and errors of the real server on loopback, beside the same model called in-process. Writes benchmarks/serving.md."

import http.client
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
os.environ["MEDLAB_PROGRESS"] = "off"
SECONDS = float(os.environ.get("MEDLAB_BENCHMARK_SECONDS", "6"))


def start(bundle: Path, port: int, log: Path, workers: int):
    "The server as a user starts it."
    words = [
        Path(sys.executable).with_name("medlab-serve"),
        "--model",
        bundle,
        "--port",
        str(port),
        "--workers",
        str(workers),
    ]
    with open(log, "wb") as file:
        server = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    for _ in range(1800):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return server
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    server.kill()
    server.wait()
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def load(port: int, path: str, bodies: list[bytes], clients: int, right) -> dict:
    "Clients that each send one request after the other over a kept connection, for a few seconds."
    took, wrong, end = [], [], time.perf_counter() + SECONDS

    def client(number):
        connection, i = http.client.HTTPConnection("127.0.0.1", port, timeout=30), number
        while time.perf_counter() < end:
            began = time.perf_counter()
            connection.request("POST", path, bodies[i % len(bodies)], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            took.append(time.perf_counter() - began)
            if answer.status != 200 or not right(i % len(bodies), body):
                wrong.append(answer.status)
            i += clients
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    began = time.perf_counter()
    [t.start() for t in threads]
    [t.join() for t in threads]
    ms = np.array(took) * 1000
    return {
        "per_second": len(took) / (time.perf_counter() - began),
        "p50": np.median(ms),
        "p99": np.quantile(ms, 0.99),
        "errors": len(wrong),
        "requests": len(took),
    }


def per_second(function, items: int) -> float:
    "Items per second of a function that does them all; best of three."
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return items / best


def main() -> None:
    "Measure and write."
    from medlab.serve.example import example_bundle, example_patients
    from medlab.serve.problems import dumps, loads
    from medlab.serve.requests import read_patient
    from medlab.serve.scoring import answers
    from medlab.studies.risk.model import load as load_bundle

    with tempfile.TemporaryDirectory() as place:
        real = ROOT / "artifacts" / "risk" / "model"
        bundle = real if (real / "card.json").exists() else example_bundle(Path(place) / "model")
        scorer = load_bundle(bundle)
        people = [p for p in example_patients(400) if 18 <= max(r["age"] for r in p["records"]) <= 90][:300]
        patients = [read_patient(p) for p in people]
        expected = [a["probability"] for a in answers(scorer, patients)]
        singles = [dumps(p) for p in people]
        batches = [dumps({"patients": people[i : i + 100]}) for i in (0, 100, 200)]
        one = lambda i, body: abs(loads(body)["probability"] - expected[i]) < 1e-9
        many = lambda i, body: np.allclose(
            [p["probability"] for p in loads(body)["predictions"]],
            expected[i * 100 : i * 100 + 100],
            atol=1e-9,
        )
        alone = per_second(lambda: [answers(scorer, [p]) for p in patients[:40]], 40)
        together = per_second(lambda: answers(scorer, patients), 300)
        rows = []
        for workers in (1, 2):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            server = start(bundle, port, Path(place) / "log", workers)
            try:
                load(port, "/predict", singles, 4, one)  # warm
                for clients in (1, 16) if workers == 1 else (16,):
                    rows.append(
                        (workers, clients, "one patient", 1, load(port, "/predict", singles, clients, one))
                    )
                if workers == 1:
                    for clients in (1, 4):
                        rows.append(
                            (
                                workers,
                                clients,
                                "a batch of 100",
                                100,
                                load(port, "/predict/batch", batches, clients, many),
                            )
                        )
            finally:
                server.terminate()
                server.wait(60)
    made = "trained by the pipeline" if bundle == real else "the small example bundle"
    lines = [
        "# Serving", "", "Written by `python benchmarks/serving.py`; every figure comes from one run on one machine. Ratios travel, seconds don't.", "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}. Model: {made}, members {', '.join(scorer.members)}. Clients run on the",
        "same cores as the server and check every probability against the one computed in-process.", "",
        "| worker processes | clients at once | request | requests/s | patients/s | p50, ms | p99, ms | requests | errors |", "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(f"| {w} | {c} | {what} | {r['per_second']:,.0f} | {r['per_second'] * n:,.0f} | {r['p50']:.1f} | {r['p99']:.1f} | {r['requests']:,} | {r['errors']} |" for w, c, what, n, r in rows),
        "", "## The same model without a server", "", "| how | patients/s | ratio |", "| --- | ---: | ---: |",
        f"| one call per patient, as a naive server does | {alone:,.0f} | 1 |", f"| one call for 300 patients | {together:,.0f} | {together / alone:.1f} |",
        f"| the server, one patient a request, {rows[1][1]} clients | {rows[1][4]['per_second']:,.0f} | {rows[1][4]['per_second'] / alone:.1f} |",
        f"| the server, batches of 100 | {max(r[4]['per_second'] * 100 for r in rows if r[3] == 100):,.0f} | {max(r[4]['per_second'] * 100 for r in rows if r[3] == 100) / alone:.1f} |", "",
        "Requests that wait at the same time are scored in one call; that is why a server with many clients can serve more patients than", "the same model called once per patient.",
    ]  # fmt: skip
    (ROOT / "benchmarks" / "serving.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
