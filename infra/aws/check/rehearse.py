#!/usr/bin/env python3
"""Rehearses scripts/aws-up and scripts/aws-down with Terraform itself and the AWS provider's schema, and tests what they made.

  provider.py SCHEMA.json rehearse.py       (scripts/infra-check does it)

Runs in a copy of infra/aws and scripts. AWS itself has no part in it: names, types, references, validations, the two scripts and
every policy are tested for real, whether AWS accepts the calls is not.
"""
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

import world

# The last one takes the fleet down.
TESTS = ["test_policies", "test_hosts", "test_settings"]


def main() -> int:
    for name in ("infra/aws/base", "infra/aws/fleet"):
        shutil.copytree(world.ROOT / name, world.WORK / name, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.auto.tfvars*", "backend.tf"))
    (world.WORK / "scripts").mkdir()
    for name in ("aws-up", "aws-down", "lib.sh"):
        shutil.copy(world.ROOT / "scripts" / name, world.WORK / "scripts")
    world.settings("base", world.BASE)
    world.settings("fleet", world.FLEET)
    os.environ["TF_CLI_CONFIG_FILE"] = str(world.WORK / "terraformrc")
    (world.WORK / "terraformrc").touch()
    only_planned = world.run("scripts/aws-up", "--plan-only")
    assert "to add" in only_planned.stdout, only_planned
    assert not list(world.WORK.rglob("*.tfstate")), "--plan-only made something"
    world.run("scripts/aws-up", "--yes", "--base-only")
    assert not (world.WORK / "infra/aws/fleet/terraform.tfstate").exists(), "--base-only made a fleet"
    world.run("scripts/aws-up", "--yes")
    return 0 if unittest.main(module=None, argv=[sys.argv[0], *(sys.argv[1:] or TESTS)], exit=False, warnings="ignore").result.wasSuccessful() else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        world.WORK = pathlib.Path(directory)
        sys.exit(main())
