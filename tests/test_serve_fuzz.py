"Strangers' bytes: a documented refusal, or the right answer; never an error of the server, never a number for nonsense."

import copy
import gzip
import json
import os
import random
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from test_serve import PATIENT, free_port, started, stopped

from medlab.serve.app import create_app
from medlab.serve.example import example_bundle, example_patients
from medlab.serve.guards import Settings

EXAMPLES = int(
    os.environ.get("MEDLAB_FUZZ_EXAMPLES", "2")
)  # of each operation; by hand: hundreds, on all addresses
BODIES = int(os.environ.get("MEDLAB_FUZZ_BODIES", "1000"))
PHASES = "fuzzing" if EXAMPLES < 10 else "examples,coverage,fuzzing,stateful"
SOME = "^/(predict|predict/batch|model/info|health|v2/models/risk/infer|invocations)$"
KEY = "a key for the tests only"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return example_bundle(tmp_path_factory.mktemp("risk") / "model", patients=200, rounds=8)


@pytest.fixture(scope="module")
def application(bundle):
    return create_app({"risk": bundle}, Settings(api_key=KEY))


def test_the_schema_is_the_behaviour(bundle, tmp_path):
    "schemathesis, all of its checks, against a running server."
    port = free_port()
    server = started(bundle, port, tmp_path / "log", *PATIENT, MEDLAB_API_KEY=KEY)
    try:
        words = [
            *(
                "run",
                f"http://127.0.0.1:{port}/openapi.json",
                "--checks",
                "all",
                "--max-examples",
                str(EXAMPLES),
                "--seed",
                "1",
            ),
            *(
                "--generation-database",
                "none",
                "--no-color",
                "--request-timeout",
                "300",
                "--header",
                f"X-API-Key: {KEY}",
                "--phases",
                PHASES,
            ),
            *(("--include-path-regex", SOME) if EXAMPLES < 10 else ()),
        ]
        ran = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3000,
        )
    finally:
        stopped(server)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert "Tested:" in ran.stdout and '"event":"error"' not in (tmp_path / "log").read_text()


def spoiled(text: bytes, patient: dict, rng: random.Random) -> tuple[bytes, dict]:
    "A valid body made invalid in one of many ways, and its headers."
    head = {"content-type": "application/json"}
    record = rng.choice(patient["records"])
    numbers = [k for k in record if isinstance(record[k], (int, float)) and not isinstance(record[k], bool)]
    name = rng.choice(numbers)
    junk = rng.choice(
        [
            "12",
            "NaN",
            "",
            "null",
            "-",
            "1e5",
            True,
            [],
            {},
            [[1]],
            {"value": 1},
            {"unit": "kg"},
            {"value": "1", "unit": "mg/dL"},
            -1e9,
            1e308,
            10**17,
            "\u0000",
            "🩺",
            {"$gt": 0},
        ]
    )

    def swap(value):
        p = copy.deepcopy(patient)
        rng.choice(p["records"])[name] = value
        return json.dumps(p).encode()

    def raw(token: str):
        return (
            json.dumps(patient)
            .replace(f'"{name}": {json.dumps(record[name])}', f'"{name}": {token}', 1)
            .encode()
        )

    ways = [
        lambda: (text[: rng.randrange(1, len(text) - 1)], head),
        lambda: (text + rng.choice([b"}", b"x", b",", b"\x00", text]), head),
        lambda: (swap(junk), head),
        lambda: (swap(junk), head),
        lambda: (json.dumps({**patient, "records": [{**record, rng.choice(["target", "glucos", "$where", "é", "__proto__"]): 1}]}).encode(), head),
        lambda: (raw(rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "01", "+1", "0x10", "1_000", ".5", "9" * 400, "'1'", "undefined"])), head),
        lambda: (b"[" * rng.choice([50, 2000, 100_000]), head),
        lambda: (b'{"records":' * rng.choice([50, 5000]) + b"1" + b"}" * 50, head),
        lambda: (json.dumps({**patient, "records": [record] * 2}).encode(), head),
        lambda: (json.dumps({k: v for k, v in patient.items() if k != rng.choice(["patient_id", "records"])}).encode()[:-1] + b', "x": 1}', head),
        lambda: (json.dumps({**patient, "records": rng.choice([[], None, {}, 3, "x", [None], [[record]], [record] * 100])}).encode(), head),
        lambda: (json.dumps({**patient, "patient_id": rng.choice(["", None, 7, "x" * 65, ["a"]])}).encode(), head),
        lambda: (text.replace(b'"patient_id"', b'"patient_id": "other", "patient_id"', 1), head),
        lambda: (text.replace(b'"year"', b'"year": 2001, "year"', 1), head),
        lambda: (rng.choice([b"", b" ", b"null", b"[]", b"{}", b"0", b'"x"', b"true", b"\xff\xfe", b"\xef\xbb\xbf" + text]), head),
        lambda: (gzip.compress(text), head),
        lambda: (gzip.compress(text), {**head, "content-encoding": "gzip"}),
        lambda: (text.decode().encode(rng.choice(["utf-16", "utf-32"])), head),
        lambda: (text, {"content-type": rng.choice(["text/plain", "application/xml", "", "application/json; charset=utf-16", "multipart/form-data; boundary=x"])}),
        lambda: (bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200))), head),
        lambda: (text.replace(patient["patient_id"].encode(), b"\\ud800", 1), head),
        lambda: (text.replace(b":", b"=", 1), head),
    ]  # fmt: skip
    return rng.choice(ways)()


def test_bodies_spoiled_in_a_thousand_ways_get_a_reason_and_never_a_number(application):
    client, rng = TestClient(application, raise_server_exceptions=False), random.Random(7)
    patients = [p for p in example_patients(30) if 18 <= max(r["age"] for r in p["records"]) <= 90]
    seen = {}
    for _ in range(BODIES):
        patient = rng.choice(patients)
        body, head = spoiled(json.dumps(patient).encode(), patient, rng)
        answer = client.post("/predict", content=body, headers={**head, "X-API-Key": KEY})
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert 400 <= answer.status_code < 500, (answer.status_code, body[:300], head)
        told = answer.json()
        assert told["error"] and "do" in told and "probability" not in told
    assert {400, 409, 413, 415, 422} <= set(seen)


def test_spoiled_patients_in_a_batch_never_get_a_number_and_never_harm_the_others(application):
    client, rng = TestClient(application, raise_server_exceptions=False), random.Random(8)
    patients = [p for p in example_patients(12) if 18 <= max(r["age"] for r in p["records"]) <= 90]
    good = {
        p["patient_id"]: client.post("/predict", json=p, headers={"X-API-Key": KEY}).json()["probability"]
        for p in patients
    }
    for _ in range(15):
        items, bad = [], set()
        for patient in patients:
            item = patient
            if rng.random() < 0.4:
                body, _ = spoiled(json.dumps(patient).encode(), patient, rng)
                try:
                    item = json.loads(body)
                except (ValueError, RecursionError):
                    item = None
                if item == patient:
                    item = None
                bad.add(len(items))
            items.append(item)
        try:
            body = json.dumps({"patients": items}, allow_nan=False).encode()
        except (ValueError, RecursionError):
            continue
        answer = client.post(
            "/predict/batch", content=body, headers={"X-API-Key": KEY, "content-type": "application/json"}
        )
        if answer.status_code == 400:
            continue  # the whole body has no one meaning
        made = answer.json()
        assert answer.status_code == 200, answer.text
        assert bad <= {e["index"] for e in made["errors"]}
        assert all(abs(p["probability"] - good[p["patient_id"]]) < 1e-9 for p in made["predictions"])
        assert len(made["predictions"]) + len(made["errors"]) == len(items)
