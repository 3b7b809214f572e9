"""The copy that is rehearsed in, and what its settings are."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
ACCOUNT = "111122223333"
ADMIN, PUBLISHER = f"arn:aws:iam::{ACCOUNT}:role/key-admin", f"arn:aws:iam::{ACCOUNT}:role/publisher"
A = {f"pcr{n}": f"a{n}" * 48 for n in (0, 1, 2)}
B = {f"pcr{n}": f"b{n}" * 48 for n in (0, 1, 2, 8)}
BASE = {
    "name": "cloister", "region": "eu-central-1", "availability_zones": ["eu-central-1a", "eu-central-1b"],
    "key_administrators": [ADMIN], "publishers": [PUBLISHER], "images": [A, B],
}
FLEET = {
    "instance_type": "m7i.2xlarge", "enclave_memory_mib": 12288, "packages": ["demo", "mini-lm"],
    "release": {"version": "1.0.0", "host_sha256": "12" * 32, "eif_sha256": "34" * 32},
    "broker": {"host": "kbs.example.org", "cidrs": ["10.9.0.0/24"]}, "callers": ["10.8.0.0/16"],
    "fleet": {"min": 2, "max": 4, "flows_per_host": 40},
}

# Set by rehearse.py: a copy of infra/aws and of the scripts.
WORK = pathlib.Path()


def run(*command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(command, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False, cwd=WORK, **options)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def state(stack: str) -> dict:
    """Address -> values of what exists."""
    shown = json.loads(run("terraform", f"-chdir=infra/aws/{stack}", "show", "-json").stdout)
    return {r["address"]: r["values"] for r in shown.get("values", {}).get("root_module", {}).get("resources", []) if r["mode"] == "managed"}


def settings(stack: str, values: dict) -> None:
    (WORK / f"infra/aws/{stack}/test.auto.tfvars.json").write_text(json.dumps(values))


def refused(stack: str, values: dict) -> str:
    """What `plan` says to settings it must not take."""
    original = BASE if stack == "base" else FLEET
    settings(stack, {**original, **values})
    done = run("terraform", f"-chdir=infra/aws/{stack}", "plan", "-input=false", "-no-color", "-lock=false", check=False)
    settings(stack, original)
    assert done.returncode == 1, f"accepted: {values}"
    return " ".join(done.stderr.replace("│", " ").split())


def planned(stack: str, values: dict) -> dict:
    """Address -> values as they would be with these settings; what only AWS knows is absent."""
    original = BASE if stack == "base" else FLEET
    file = WORK / f"{stack}.tfplan"
    settings(stack, original | values)
    run("terraform", f"-chdir=infra/aws/{stack}", "plan", "-input=false", "-lock=false", f"-out={file}")
    settings(stack, original)
    changes = json.loads(run("terraform", f"-chdir=infra/aws/{stack}", "show", "-json", str(file)).stdout)["resource_changes"]
    return {change["address"]: change["change"]["after"] for change in changes}


def present(path: str | pathlib.Path | None, name: str) -> str | None:
    """A program's path, if it is there. Absent, the test says so and is skipped; in CI it fails."""
    if path and pathlib.Path(path).is_file():
        return str(path)
    assert os.environ.get("CI") != "true", f"{name} is missing"
    print(f"\nskipped: there is no {name}", file=sys.stderr)
    return None


def built(name: str) -> str | None:
    """A program of ours; Debian has a `host` of its own, which is another."""
    return present(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release", name), name)


def installed(name: str) -> str | None:
    return present(shutil.which(name), name)
