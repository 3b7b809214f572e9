"""Who may open the model key, read the bucket, pass the endpoint."""
import json
import os
import unittest

import policy
from world import ACCOUNT, ADMIN, PUBLISHER, ROOT, A, B, state


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

    def test_is_the_policy_that_the_simulated_kms_is_tested_with(self):
        stored = ROOT / "infra/aws/check/model_key_policy.json"  # tests/kms_release/terraform.rs reads it
        # What made the role here gave it another name than AWS would.
        policy = json.loads(json.dumps(self.key_policy).replace(self.host, f"arn:aws:iam::{ACCOUNT}:role/cloister-host"))
        if os.environ.get("CLOISTER_UPDATE"):
            stored.write_text(json.dumps(policy, indent=2) + "\n")
        self.assertEqual(policy, json.loads(stored.read_text()), "write it again with CLOISTER_UPDATE=1")

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
