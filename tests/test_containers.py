"Container files: linted, and true to the repository. They are not built here: there is no engine to build them with."

import fnmatch
import json
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import ROOT

FOLDER = ROOT / "containers"
FILES = sorted(FOLDER.glob("Dockerfile.*"))
COMPOSE = FOLDER / "compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
RULES = "{extends: default, rules: {line-length: {max: 130}, document-start: disable, braces: disable, comments: {min-spaces-from-content: 1}}}"
ids = lambda value: getattr(value, "name", value)


def instructions(path) -> list[tuple[str, str]]:
    "Instruction and argument of each line of a Dockerfile, continued lines joined."
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def ignored(name: str) -> bool:
    "Whether .dockerignore keeps this path out of the build."
    rules = [r.rstrip("/") for r in (ROOT / ".dockerignore").read_text().splitlines() if r and r[0] != "#"]
    return any(fnmatch.fnmatch(name, r) or fnmatch.fnmatch(name, r.removeprefix("**/")) for r in rules)


def make_commands() -> list[list[str]]:
    "Every command in these files that calls make."
    found = [service["command"] for service in SERVICES.values() if "command" in service]
    for path in FILES:
        found += [json.loads(argument) for word, argument in instructions(path) if word == "CMD"]
        found += [
            [*m.split()]
            for word, a in instructions(path)
            if word == "RUN"
            for m in re.findall(r"\bmake [a-z]+", a)
        ]
    return [command for command in found if command[0] == "make" and "=4" not in command[1]]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_hadolint_has_nothing_to_say(path):
    done = subprocess.run([shutil.which("hadolint"), "--no-color", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_yamllint_has_nothing_to_say():
    done = subprocess.run(
        [shutil.which("yamllint"), "-s", "-d", RULES, COMPOSE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_linters_can_fail(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN apt-get install git\n")
    assert subprocess.run([shutil.which("hadolint"), tmp_path / "Dockerfile"], capture_output=True).returncode


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_an_image_is_pinned_and_does_not_run_as_root(path):
    lines = instructions(path)
    assert [a for word, a in lines if word == "FROM"] == ["python:3.11-slim-bookworm"]
    users = [i for i, (word, a) in enumerate(lines) if word == "USER" and a == "1000:1000"]
    assert users and users[-1] < next(i for i, (word, _) in enumerate(lines) if word == "CMD")
    for word, argument in lines:
        assert not re.search(r"(?i)(password|secret|token|api_key)\s*=\s*\S", f"{word} {argument}")


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_what_is_copied_is_there_and_is_not_ignored(path):
    copied = [a.split()[1:-1] for word, a in instructions(path) if word == "COPY"]
    assert copied
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists(), name
        assert name == "." or not ignored(name), f"{name} is copied, and .dockerignore keeps it out"


def test_data_and_environments_stay_out_and_the_pipelines_needs_do_not():
    for name in (".venv", "artifacts", "data", ".medlab", "medlab/__pycache__", "x/server.pem"):
        assert ignored(name), name
    needed = [
        "Makefile",
        "dvc.yaml",
        "dvc.lock",
        "params.yaml",
        "data.dvc",
        ".dvc/config",
        "dvcstore",
        ".git",
        "nbs",
    ]
    for name in needed:
        assert (ROOT / name).exists() and not ignored(name), name


def test_the_commands_inside_are_make_targets():
    commands = make_commands()
    assert {command[1] for command in commands} >= {"setup", "reports", "serve", "mlflow"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in commands:
        assert command[1] in targets, f"the Makefile has no target {command[1]}"
        for setting in command[2:]:
            name = setting.split("=")[0]
            assert re.search(rf"\$[({{]{name}[)}}]", (ROOT / "Makefile").read_text()), f"make knows no {name}"


def test_make_would_run_what_the_containers_ask_for():
    "`make -n` shows the commands without running them; the address inside a container must reach the server."
    for command in make_commands():
        if any("HOST=" in setting for setting in command):
            shown = subprocess.run(
                ["make", "-n", "-o", ".venv/.ready", *command[1:]], cwd=ROOT, capture_output=True, text=True
            )
            assert shown.returncode == 0, shown.stderr
            assert "--host 0.0.0.0" in shown.stdout, shown.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name):
    service = SERVICES[name]
    assert service["user"] == "1000:1000" and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} would listen to the network"
    assert service.get("read_only") or name == "pipeline"
    for value in service.get("environment", {}).values():
        assert "KEY" not in value or value.startswith("${MEDLAB_API_KEY:?")  # from outside, and never empty


def test_the_compose_file_agrees_with_itself_and_with_the_images():
    whole = yaml.safe_load(COMPOSE.read_text())
    assert set(SERVICES) == {"pipeline", "serving", "mlflow"}
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert used == set(whole["volumes"])
    known = {
        "image",
        "build",
        "command",
        "environment",
        "ports",
        "read_only",
        "tmpfs",
        "volumes",
        "healthcheck",
        "depends_on",
    }
    known |= {"restart", "cap_drop", "security_opt", "user", "init"}
    for name, service in SERVICES.items():
        assert set(service) <= known, f"{name}: {set(service) - known}"
        assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for other, rule in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert rule["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
    assert any("/health" in part for part in SERVICES["serving"]["healthcheck"]["test"])
    assert SERVICES["pipeline"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "artifacts:/medlab/artifacts:ro" in SERVICES["serving"]["volumes"]
