#!/usr/bin/env python3
"""Rehearses scripts/aws-up and scripts/aws-down with Terraform itself and the AWS provider's schema, and tests what they made.

  provider.py SCHEMA.json rehearse.py       (scripts/infra-check does it)

Runs in a copy of infra/aws and scripts. AWS itself has no part in it: names, types, references, validations, the two scripts and
every policy are tested for real, whether AWS accepts the calls is not.
"""
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import policy

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


def registers(image: dict) -> dict:
    return {f"kms:RecipientAttestation:{name.upper()}": value for name, value in image.items()}


class ModelKey(unittest.TestCase):
    def setUp(self):
        base = state("base")
        self.key_policy = json.loads(base["aws_kms_key.model"]["policy"])
        self.role_policy = json.loads(base["aws_iam_role_policy.host"]["policy"])
        self.host, self.key = base["aws_iam_role.host"]["arn"], base["aws_kms_key.model"]["arn"]

    def may(self, caller: str, action: str, document: dict | None, extra: list | None = None, role_policy: dict | None = None) -> bool:
        key_policy = {**self.key_policy, "Statement": self.key_policy["Statement"] + (extra or [])}
        return policy.allows(key_policy, role_policy or {}, action=action, resource=self.key, caller=caller, context=registers(document or {}))

    def test_opens_for_each_accepted_image(self):
        for image in (A, B, {**B, "pcr4": "f" * 96}, {name: value.upper() for name, value in A.items()}):
            for action in ("kms:Decrypt", "kms:GenerateDataKey"):
                self.assertTrue(self.may(self.host, action, image, role_policy=self.role_policy), (image, action))

    def test_refuses_without_a_document(self):
        for caller in (self.host, ADMIN, PUBLISHER, f"arn:aws:iam::{ACCOUNT}:root"):
            self.assertFalse(self.may(caller, "kms:Decrypt", None), caller)

    def test_refuses_each_other_register(self):
        for name in ("pcr0", "pcr1", "pcr2"):
            self.assertFalse(self.may(self.host, "kms:Decrypt", {**A, name: "c" * 96}), name)
            self.assertFalse(self.may(self.host, "kms:Decrypt", {k: v for k, v in A.items() if k != name}), name)

    def test_refuses_a_debug_enclave(self):
        self.assertFalse(self.may(self.host, "kms:Decrypt", {name: "0" * 96 for name in A}))

    def test_refuses_registers_of_two_images_mixed(self):
        for names in (["pcr0"], ["pcr1"], ["pcr2"], ["pcr0", "pcr1"], ["pcr1", "pcr2"]):
            self.assertFalse(self.may(self.host, "kms:Decrypt", {**A, **{name: B[name] for name in names}}), names)

    def test_refuses_an_image_without_the_signature_its_statement_names(self):
        self.assertFalse(self.may(self.host, "kms:Decrypt", {k: v for k, v in B.items() if k != "pcr8"}))
        self.assertFalse(self.may(self.host, "kms:Decrypt", {**B, "pcr8": A["pcr0"]}))

    def test_refuses_another_role_with_a_right_document(self):
        for caller in (ADMIN, PUBLISHER, f"arn:aws:iam::{ACCOUNT}:role/other", "arn:aws:iam::444455556666:role/cloister-host"):
            self.assertFalse(self.may(caller, "kms:Decrypt", A), caller)

    def test_refuses_even_what_a_later_statement_allows(self):
        everything = [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}]
        for action in ("kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair", "kms:GenerateDataKeyWithoutPlaintext"):
            self.assertFalse(self.may(self.host, action, None, everything), action)
            self.assertFalse(self.may(ADMIN, action, {**A, "pcr2": "c" * 96}, everything), action)
        for action in ("kms:CreateGrant", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:ReplicateKey"):
            self.assertFalse(self.may(ADMIN, action, A, everything), action)

    def test_the_role_alone_refuses_too(self):
        mistake = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": self.host}, "Action": "kms:*", "Resource": "*"}]}
        ask = {"action": "kms:Decrypt", "resource": self.key, "caller": self.host}
        self.assertTrue(policy.allows(mistake, {}, context={}, **ask))
        self.assertFalse(policy.allows(mistake, self.role_policy, context={}, **ask))

    def test_duties_are_separate(self):
        self.assertTrue(self.may(PUBLISHER, "kms:Encrypt", None))
        self.assertTrue(self.may(ADMIN, "kms:PutKeyPolicy", None))
        self.assertFalse(self.may(ADMIN, "kms:Encrypt", None))
        self.assertFalse(self.may(PUBLISHER, "kms:PutKeyPolicy", None))
        for action in ("kms:Encrypt", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DescribeKey"):
            self.assertFalse(self.may(self.host, action, A), action)

    def test_is_kept_and_rotated(self):
        key = state("base")["aws_kms_key.model"]
        self.assertTrue(key["enable_key_rotation"])
        self.assertFalse(key["bypass_policy_lockout_safety_check"])


class Policies(unittest.TestCase):
    def test_every_action_and_condition_exists(self):
        """Parliament knows AWS's lists of them, from which a misspelt one is missing and would silently never match."""
        from parliament import analyze_policy_string
        seen = 0
        for stack in ("base", "fleet"):
            for address, values in state(stack).items():
                for name in ("policy", "assume_role_policy"):
                    if not values.get(name) or not values[name].startswith("{"):
                        continue
                    document = json.loads(values[name])
                    seen += 1
                    for statement in document["Statement"]:
                        # It checks identity policies, whose statements have no principal.
                        one = {k: v for k, v in statement.items() if k != "Principal"} | {"Resource": statement.get("Resource", "*")}
                        found = analyze_policy_string(json.dumps({"Version": document["Version"], "Statement": [one]})).findings
                        known = {"RESOURCE_MISMATCH", "RESOURCE_STAR"}
                        if statement["Effect"] == "Deny":
                            # Meant so: operations that never carry a document are denied by its absence.
                            known.add("UNKNOWN_CONDITION_FOR_ACTION")
                        self.assertEqual([f.issue for f in found if f.issue not in known], [], (address, statement))
        self.assertGreaterEqual(seen, 10)

    def test_parliament_would_see_a_misspelt_one(self):
        from parliament import analyze_policy_string
        for action, key in (("kms:Decrypts", "kms:RecipientAttestation:PCR0"), ("kms:Decrypt", "kms:ReceiverAttestation:PCR0")):
            text = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*", "Condition": {"StringEquals": {key: "a"}}}]})
            self.assertTrue(analyze_policy_string(text).findings, (action, key))


class ModelsBucket(unittest.TestCase):
    def setUp(self):
        base = state("base")
        self.bucket_policy = json.loads(base["aws_s3_bucket_policy.models"]["policy"])
        self.role_policy = json.loads(base["aws_iam_role_policy.host"]["policy"])
        self.endpoint_policy = json.loads(base["aws_vpc_endpoint.s3"]["policy"])
        self.host, self.endpoint = base["aws_iam_role.host"]["arn"], base["aws_vpc_endpoint.s3"]["id"]
        self.bucket = f"arn:aws:s3:::cloister-models-{ACCOUNT}"

    def may(self, caller: str, action: str, key: str, identity: dict, **context) -> bool:
        context = {"aws:SecureTransport": "true", "aws:SourceVpce": self.endpoint, "aws:PrincipalArn": caller, **context}
        context = {name.replace("_", ":", 1): value for name, value in context.items() if value is not None}
        return policy.allows(self.bucket_policy, identity, action=action, resource=f"{self.bucket}{key}", caller=caller, context=context)

    def test_hosts_read_models_and_releases_only(self):
        self.assertTrue(self.may(self.host, "s3:GetObject", "/models/demo/manifest.json", self.role_policy))
        self.assertTrue(self.may(self.host, "s3:GetObject", "/releases/1.0.0/app.eif", self.role_policy))
        self.assertTrue(self.may(self.host, "s3:ListBucket", "", self.role_policy, **{"s3:prefix": "models/demo/"}))
        self.assertFalse(self.may(self.host, "s3:ListBucket", "", self.role_policy, **{"s3:prefix": ""}))
        self.assertFalse(self.may(self.host, "s3:GetObject", "/other", self.role_policy))
        for action in ("s3:PutObject", "s3:DeleteObject", "s3:PutBucketPolicy"):
            self.assertFalse(self.may(self.host, action, "/models/demo/manifest.json", self.role_policy), action)

    def test_refuses_other_ways_in(self):
        powerful = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        for caller in (self.host, ADMIN):
            for endpoint in (None, "vpce-0badbadbad"):
                self.assertFalse(self.may(caller, "s3:GetObject", "/models/x", powerful, **{"aws:SourceVpce": endpoint}))
            self.assertFalse(self.may(caller, "s3:PutObject", "/models/x", powerful))
        self.assertTrue(self.may(PUBLISHER, "s3:PutObject", "/models/x", powerful, **{"aws:SourceVpce": None}))
        self.assertFalse(self.may(PUBLISHER, "s3:PutObject", "/models/x", powerful, **{"aws:SecureTransport": "false"}))

    def test_the_endpoint_leads_nowhere_else(self):
        def passes(caller, resource):
            return policy.allows({}, self.endpoint_policy, action="s3:GetObject", resource=resource, caller=caller, context={"aws:PrincipalArn": caller})
        self.assertTrue(passes(self.host, f"{self.bucket}/models/x"))
        self.assertTrue(passes("anonymous", "arn:aws:s3:::al2023-repos-eu-central-1-de612dc2/core/x.rpm"))
        self.assertFalse(passes(self.host, "arn:aws:s3:::somebody-elses/x"))
        self.assertFalse(passes(ADMIN, f"{self.bucket}/models/x"))


class Hosts(unittest.TestCase):
    def setUp(self):
        self.fleet = state("fleet")
        self.template = self.fleet["aws_launch_template.this"]
        self.script = base64.b64decode(self.template["user_data"]).decode()

    def part(self, path: str) -> str:
        return re.search(rf"cat >{re.escape(path)} <<'EOF'\n(.*?)^EOF$", self.script, re.S | re.M).group(1)

    def test_user_data_is_a_shell_script_within_ec2s_limit(self):
        self.assertLess(len(self.template["user_data"]) * 3 // 4, 16 * 1024)
        self.assertEqual(subprocess.run(["bash", "-n"], input=self.script, text=True, check=False).returncode, 0)
        self.assertNotIn("${", self.script)
        self.assertNotIn("--debug-mode", re.sub(r"(?m)^#.*", "", self.script))

    def test_allocator_and_enclave_agree(self):
        allocator = self.part("/etc/nitro_enclaves/allocator.yaml")
        memory, cpus = (re.search(rf"^{name}: (\d+)$", allocator, re.M).group(1) for name in ("memory_mib", "cpu_count"))
        self.assertIn(f"--enclave-cid 16 --cpu-count {cpus} --memory {memory}\n", self.part("/etc/systemd/system/cloister-enclave.service"))
        self.assertEqual((memory, cpus), ("12288", "6"))

    def test_units_are_what_systemd_reads(self):
        if not shutil.which("systemd-analyze"):
            print("\nskipped: systemd-analyze is not installed", file=sys.stderr)
            return
        with tempfile.TemporaryDirectory() as directory:
            units = []
            for name in ("cloister-host.service", "cloister-enclave.service"):
                text = self.part(f"/etc/systemd/system/{name}")
                text = re.sub(r"ExecStart=/(opt/cloister/host|usr/bin/nitro-cli)", "ExecStart=/bin/true", text).replace("/usr/bin/nitro-cli", "/bin/true")
                units.append(pathlib.Path(directory, name))
                units[-1].write_text(text)
            pathlib.Path(directory, "nitro-enclaves-allocator.service").write_text("[Service]\nExecStart=/bin/true\n")
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, units)], text=True, capture_output=True, check=False)
            ours = [line for line in done.stderr.splitlines() if "cloister" in line]
            self.assertEqual(ours, [])

    def test_host_takes_its_configuration(self):
        text = self.part("/etc/cloister/host.toml")
        self.assertEqual(tomllib.loads(text)["egress"], [{"class": "key-release", "listen": "vsock://any:8443", "target": "kbs.example.org:8443"}])
        host = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/host")
        if not host.is_file():
            print(f"\nskipped: {host} is not built", file=sys.stderr)
            return
        for old, new, refused_ in (("", "", False), ("[models]", "[modles]", True), ('class = "key-release"', 'class = "Key Release"', True)):
            with tempfile.TemporaryDirectory() as directory:
                file = pathlib.Path(directory, "host.toml")
                # Another port and place: the one thing tested is that `host` reads every field and takes it.
                file.write_text(text.replace(old, new, 1).replace(":9100", ":0").replace("0.0.0.0:7443", "127.0.0.1:0").replace("/var/lib/cloister/packages", directory))
                try:
                    status = subprocess.run([host, "--config", file], capture_output=True, timeout=3, check=False).returncode
                except subprocess.TimeoutExpired:
                    status = 0  # it serves
                # 69: no vsock on this machine.
                self.assertEqual(status == 64, refused_, status)
                self.assertIn(status, (0, 64, 69))

    def test_instances_are_hardened(self):
        template = self.template
        self.assertEqual(template["enclave_options"], [{"enabled": True}])
        metadata = template["metadata_options"][0]
        self.assertEqual((metadata["http_tokens"], metadata["http_put_response_hop_limit"]), ("required", 1))
        self.assertTrue(template["block_device_mappings"][0]["ebs"][0]["encrypted"])
        self.assertFalse(template["key_name"])

    def test_health_is_the_hosts_readyz(self):
        check = self.fleet["aws_lb_target_group.relay"]["health_check"][0]
        control = tomllib.loads(self.part("/etc/cloister/host.toml"))["control"]
        self.assertEqual((check["path"], f"tcp://0.0.0.0:{check['port']}"), ("/readyz", control))
        self.assertEqual(self.fleet["aws_autoscaling_group.this"]["health_check_type"], "ELB")

    def test_no_rule_opens_to_everybody(self):
        rules = {address: values for address, values in self.fleet.items() if "_rule." in address}
        self.assertGreaterEqual(len(rules), 9)
        for address, values in rules.items():
            self.assertNotEqual(values["cidr_ipv4"], "0.0.0.0/0", address)
            self.assertEqual((values["ip_protocol"], values["from_port"]), ("tcp", values["to_port"]), address)


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
        cloister = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/cloister")
        if not cloister.is_file():
            print(f"\nskipped: {cloister} is not built", file=sys.stderr)
            return
        query = re.search(r"cloister measure build/app.eif --format json \|\n  jq '(.*?)'", (ROOT / "docs/nitro.md").read_text()).group(1)
        for name in ("kernel", "boot", "app"):
            (WORK / name).write_bytes(name.encode() * 1000)
        run(cloister, "build-eif", "--kernel", "kernel", "--cmdline", "console=ttyS0", "--ramdisk", "boot", "--ramdisk", "app", "--out", "app.eif")
        measured = run(cloister, "measure", "app.eif", "--format", "json").stdout
        made = json.loads(subprocess.run(["jq", query], input=measured, text=True, capture_output=True, check=True).stdout)
        settings("base", BASE | made)
        plan = WORK / "measured.tfplan"
        run("terraform", "-chdir=infra/aws/base", "plan", "-input=false", "-lock=false", f"-out={plan}")
        settings("base", BASE)
        changes = json.loads(run("terraform", "-chdir=infra/aws/base", "show", "-json", str(plan)).stdout)["resource_changes"]
        after = next(c for c in changes if c["address"] == "aws_kms_key.model")["change"]["after"]["policy"]
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
            path = WORK / "infra/aws" / stack / file
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


def main() -> int:
    for name in ("infra/aws/base", "infra/aws/fleet"):
        shutil.copytree(ROOT / name, WORK / name, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.auto.tfvars*", "backend.tf"))
    (WORK / "scripts").mkdir()
    for name in ("aws-up", "aws-down", "lib.sh"):
        shutil.copy(ROOT / "scripts" / name, WORK / "scripts")
    settings("base", BASE)
    settings("fleet", FLEET)
    os.environ["TF_CLI_CONFIG_FILE"] = str(WORK / "terraformrc")
    (WORK / "terraformrc").touch()
    only_planned = run("scripts/aws-up", "--plan-only")
    assert "to add" in only_planned.stdout, only_planned
    assert not list(WORK.rglob("*.tfstate")), "--plan-only made something"
    run("scripts/aws-up", "--yes", "--base-only")
    assert not (WORK / "infra/aws/fleet/terraform.tfstate").exists(), "--base-only made a fleet"
    run("scripts/aws-up", "--yes")
    return 0 if unittest.main(exit=False, verbosity=1, warnings="ignore").result.wasSuccessful() else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        WORK = pathlib.Path(directory)
        sys.exit(main())
