"""What an instance gets: user data, units, configuration, health, rules."""
import base64
import json
import pathlib
import re
import subprocess
import tempfile
import tomllib
import unittest

from world import built, installed, planned, state


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
        if not (analyze := installed("systemd-analyze")):
            return
        with tempfile.TemporaryDirectory() as directory:
            units = []
            for name in ("cloister-host.service", "cloister-enclave.service"):
                text = self.part(f"/etc/systemd/system/{name}")
                text = re.sub(r"ExecStart=/(opt/cloister/host|usr/bin/nitro-cli)", "ExecStart=/bin/true", text).replace("/usr/bin/nitro-cli", "/bin/true")
                units.append(pathlib.Path(directory, name))
                units[-1].write_text(text)
            pathlib.Path(directory, "nitro-enclaves-allocator.service").write_text("[Service]\nExecStart=/bin/true\n")
            done = subprocess.run([analyze, "verify", "--man=no", *map(str, units)], text=True, capture_output=True, check=False)
            ours = [line for line in done.stderr.splitlines() if "cloister" in line]
            self.assertEqual(ours, [])

    def test_host_takes_its_configuration(self):
        text = self.part("/etc/cloister/host.toml")
        self.assertEqual(tomllib.loads(text)["egress"], [{"class": "key-release", "listen": "vsock://any:8443", "target": "kbs.example.org:8443"}])
        if not (host := built("host")):
            return
        for old, new, refused_ in (("", "", False), ("[models]", "[modles]", True), ('class = "key-release"', 'class = "Key Release"', True)):
            with tempfile.TemporaryDirectory() as directory:
                file = pathlib.Path(directory, "host.toml")
                # Another port and place: the one thing tested is that `host` reads every field and takes it.
                file.write_text(text.replace(old, new, 1).replace(":9100", ":0").replace("0.0.0.0:7443", "127.0.0.1:0").replace("/var/lib/cloister/packages", directory))
                try:
                    status = subprocess.run([host, "--config", file], capture_output=True, timeout=60 if refused_ else 5, check=False).returncode
                except subprocess.TimeoutExpired:
                    status = 0  # it serves
                # 69: no vsock on this machine.
                self.assertEqual(status == 64, refused_, status)
                self.assertIn(status, (0, 64, 69))

    def test_the_way_to_kms_is_there_only_when_asked_for(self):
        self.assertNotIn('aws_vpc_endpoint.service["kms"]', self.fleet)
        self.assertNotIn("kms.", self.script)
        after = planned("fleet", {"kms_release": True})
        self.script = base64.b64decode(after["aws_launch_template.this"]["user_data"]).decode()
        self.assertEqual([e["target"] for e in tomllib.loads(self.part("/etc/cloister/host.toml"))["egress"]], ["kbs.example.org:8443", "kms.eu-central-1.amazonaws.com:443"])
        self.assertEqual(tomllib.loads(self.part("/etc/cloister/host.toml"))["credentials"], {"listen": "vsock://any:8445", "imds": "tcp://169.254.169.254:80"})
        statement, = json.loads(after['aws_vpc_endpoint.service["kms"]']["policy"])["Statement"]
        self.assertEqual(statement["Action"], ["kms:Decrypt", "kms:GenerateDataKey"])
        self.assertEqual(statement["Resource"], state("base")["aws_kms_key.model"]["arn"])

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
