"""Exit 0 if FILE is valid CycloneDX 1.6 by the strict JSON schema, 1 and the reason if not.

  cyclonedx_validate.py FILE
"""
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read())
if error is not None:
    print(error, file=sys.stderr)
    sys.exit(1)
