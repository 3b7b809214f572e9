"""What Terraform, the scripts and the runbook refuse and take."""
import json
import re
import subprocess
import unittest

import world
from world import ACCOUNT, ADMIN, BASE, FLEET, ROOT, A, built, planned, refused, run, settings, state


class Runbook(unittest.TestCase):
    def test_settings_in_docs_are_accepted(self):
        blocks = re.findall(r"`infra/aws/(\w+)/settings.auto.tfvars.json`:\n\n```json\n(.*?)```", (ROOT / "docs/nitro.md").read_text(), re.S)
        self.assertEqual([stack for stack, _ in blocks], ["base", "fleet"])
        for stack, text in blocks:
            text = re.sub(r"<sha256sum [^>]*>", "ab" * 32, text)
            settings(stack, json.loads(text) | ({"images": [A]} if stack == "base" else {}))
            run("terraform", f"-chdir=infra/aws/{stack}", "plan", "-input=false", "-lock=false")
            settings(stack, BASE if stack == "base" else FLEET)

    def test_measurements_get_into_the_key_policy_as_docs_say(self):
        if not (cloister := built("cloister")):
            return
        query = re.search(r"cloister measure build/app.eif --format json \|\n  jq '(.*?)'", (ROOT / "docs/nitro.md").read_text()).group(1)
        for name in ("kernel", "boot", "app"):
            (world.WORK / name).write_bytes(name.encode() * 1000)
        run(cloister, "build-eif", "--kernel", "kernel", "--cmdline", "console=ttyS0", "--ramdisk", "boot", "--ramdisk", "app", "--out", "app.eif")
        measured = run(cloister, "measure", "app.eif", "--format", "json").stdout
        made = json.loads(subprocess.run(["jq", query], input=measured, text=True, capture_output=True, check=True).stdout)
        after = planned("base", made)["aws_kms_key.model"]["policy"]
        statement = next(s for s in json.loads(after)["Statement"] if s["Sid"] == "Image0")
        said = json.loads(run(cloister, "measure", "app.eif", "--format", "kms").stdout)
        self.assertEqual(statement["Condition"], said["Condition"])


class Settings(unittest.TestCase):
    def check(self, stack: str, cases: list[tuple[dict, str]]):
        for values, says in cases:
            with self.subTest(values):
                self.assertIn(says, refused(stack, values))

    def test_base_refuses(self):
        self.check("base", [
            ({"images": []}, "images: 1 to 24"),
            ({"images": [A, A]}, "images: 1 to 24 different ones"),
            ({"images": [{**A, "pcr2": "0" * 96}]}, "all-zero register"),
            ({"images": [{**A, "pcr8": "0" * 96}]}, "all-zero register"),
            ({"images": [{**A, "pcr0": A["pcr0"].upper()}]}, "lower case"),
            ({"images": [{**A, "pcr0": "a" * 64}]}, "96 hex digits"),
            ({"images": [{"pcr0": "a" * 96}]}, '"pcr1"'),
            ({"key_administrators": ["*"]}, "no wildcard"),
            ({"key_administrators": [f"arn:aws:iam::{ACCOUNT}:root"]}, "no account root"),
            ({"key_administrators": [f"arn:aws:iam::{ACCOUNT}:role/*"]}, "no wildcard"),
            ({"publishers": [ADMIN]}, "must not also be"),
            ({"publishers": []}, "at least one"),
            ({"availability_zones": ["eu-central-1a"]}, "2 to 4"),
            ({"availability_zones": ["eu-west-1a", "eu-west-1b"]}, "not of this region"),
            ({"vpc_cidr": "10.0.0.0/28"}, "/22 or larger"),
            ({"name": "Cloister"}, "3 to 22"),
            ({"region": "frankfurt"}, "as eu-central-1"),
        ])

    def test_fleet_refuses(self):
        release = FLEET["release"]
        self.check("fleet", [
            ({"release": {**release, "eif_sha256": "latest"}}, "64 hex digits"),
            ({"release": {**release, "version": "1/../../2"}}, "release.version"),
            ({"packages": ["$(reboot)"]}, "packages:"),
            ({"packages": ["../x"]}, "packages:"),
            ({"packages": []}, "packages:"),
            ({"broker": {"host": "kbs'; reboot", "cidrs": ["10.0.0.0/8"]}}, "broker: a host name"),
            ({"broker": {"host": "kbs", "cidrs": ["0.0.0.0/0"]}}, "not the whole internet"),
            ({"callers": ["0.0.0.0/0"]}, "not the whole internet"),
            ({"enclave_cpu_count": 3}, "an even number"),
            ({"enclave_cpu_count": 8}, "leave 2 vCPUs"),
            ({"enclave_memory_mib": 31744}, "leave 2 GiB"),
            ({"enclave_memory_mib": 1000}, "multiple of 1024"),
            ({"fleet": {"min": 3, "max": 2}}, "1 <= min <= max"),
            ({"ami_id": "al2023"}, "ami- and hex digits"),
        ])


class Checker(unittest.TestCase):
    """That Terraform sees what is wrong, with the schema we took from elsewhere."""

    def test_refuses_what_the_provider_does_not_have(self):
        for stack, file, old, new, says in (
            ("fleet", "launch_template.tf", "http_tokens ", "http_token ", 'An argument named "http_token" is not expected here'),
            ("fleet", "launch_template.tf", "enclave_options {", "enclave_option {", 'Blocks of type "enclave_option" are not expected here'),
            ("fleet", "load_balancer.tf", "aws_lb.this.arn\n", "aws_lb.this.arnn\n", 'This object has no argument, nested block, or exported attribute named "arnn"'),
            ("fleet", "alarms.tf", "  threshold           = each.value.threshold\n", '  threshold = "many"\n', "a number is required"),
            ("fleet", "alarms.tf", "  alarm_name          =", "  #", 'The argument "alarm_name" is required'),
            ("base", "model_key.tf", '"aws_kms_key" "model"', '"aws_kms_keys" "model"', 'does not support resource type "aws_kms_keys"'),
        ):
            path = world.WORK / "infra/aws" / stack / file
            text = path.read_text()
            self.assertIn(old, text)
            path.write_text(text.replace(old, new, 1))
            done = run("terraform", f"-chdir=infra/aws/{stack}", "validate", "-no-color", check=False)
            path.write_text(text)
            self.assertEqual(done.returncode, 1, new)
            self.assertIn(says, " ".join(done.stderr.replace("│", " ").split()))


class Scripts(unittest.TestCase):
    def test_refuse_what_they_do_not_know(self):
        for script in ("aws-up", "aws-down"):
            for argument, status in (("--force", 64), ("now", 64), ("--help", 0)):
                done = run(f"scripts/{script}", argument, check=False)
                self.assertEqual(done.returncode, status, (script, argument))
                self.assertIn("Usage: scripts/" if status == 0 else "unknown argument", done.stdout + done.stderr)
            # Nobody at the terminal.
            done = run(f"scripts/{script}", check=False)
            self.assertEqual(done.returncode, 64)
            self.assertIn("nobody to ask", done.stderr)

    def test_a_second_up_changes_nothing(self):
        done = run("scripts/aws-up", "--yes")
        self.assertEqual(done.stdout.count("No changes."), 2, done.stdout[-4000:])
        self.assertIn("gateway.toml:  enclave = \"tcp://", done.stderr)

    def test_the_base_cannot_be_destroyed(self):
        done = run("terraform", "-chdir=infra/aws/base", "plan", "-destroy", "-input=false", "-no-color", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("prevent_destroy", done.stderr)


class ZDown(unittest.TestCase):
    """Last in the order of names: afterwards there is no fleet."""

    def test_down_takes_the_fleet_and_nothing_else(self):
        kept = state("base")
        self.assertIn("to destroy", run("scripts/aws-down", "--plan-only").stdout)
        self.assertTrue(state("fleet"))
        done = run("scripts/aws-down", "--yes")
        self.assertEqual(state("fleet"), {})
        self.assertEqual(state("base"), kept)
        self.assertIn("model key", done.stderr)
