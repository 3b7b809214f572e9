#!/usr/bin/env python3
"""Takes the schema of Terraform's AWS provider out of a published package that was generated from it.

  schema.py WHEEL OUT.json

WHEEL is cdktn-provider-aws (PyPI; its METADATA names the provider's version). Its JavaScript lists, for every resource and data
source, each attribute and block under its Terraform name, with type, and whether it is required, optional or computed. What is
not of that shape stops the program: a schema with holes would let mistakes through.
"""
import json
import re
import sys
import tarfile
import zipfile

ENTRY = re.compile(
    r"(\w+): \{\s*value: (.+?),\s*isBlock: (true|false),\s*"
    r'type: "(\w+)",\s*storageClassType: "(\w+)",\s*\}',
    re.S,
)
FLAGS = re.compile(r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n(.*?)(?=// \w+ - computed|\Z)", re.S)
COMPLEX = re.compile(r"= new ([\w.]+?)(List|Map|OutputReference)\(this, \"\w+\"(?:, (true|false))?\)")
GETTER = re.compile(r"this\.get(\w+)Attribute\('(\w+)'\)")
TYPES = {
    "string": "string", "number": "number", "boolean": "bool", "any": "dynamic",
    "stringList": ["list", "string"], "numberList": ["list", "number"], "booleanList": ["list", "bool"],
    "stringMap": ["map", "string"], "numberMap": ["map", "number"], "booleanMap": ["map", "bool"], "anyMap": ["map", "dynamic"],
}
GETTERS = {
    "String": "string", "Number": "number", "Boolean": "bool", "List": ["list", "string"], "NumberList": ["list", "number"],
    "StringMap": ["map", "string"], "NumberMap": ["map", "number"], "BooleanMap": ["map", "bool"],
}


def flags_of(text: str) -> dict:
    """Each attribute's flags, and what its getter tells of the type: a name of GETTERS, or a class, its wrapping and if that is a set."""
    found = {}
    for name, computed, optional, required, body in FLAGS.findall(text):
        getter, complex_ = GETTER.search(body), COMPLEX.search(body)
        found[name] = {
            "computed": computed == "true", "optional": optional == "true", "required": required == "true",
            "getter": getter.group(1) if getter and getter.group(2) == name else complex_.groups() if complex_ else None,
        }
    return found


class Module:
    """The classes and mappers of one resource or data source."""

    def __init__(self, text: str):
        text = text.split("//# sourceMappingURL")[0]
        self.name = re.search(r'static tfResourceType = "(\w+)"', text).group(1)
        self.mappers = dict(re.findall(r"function (\w+)ToHclTerraform\(struct\) \{(.*?)\n\}", text, re.S))
        self.classes = dict(re.findall(r"^class (\w+?)(?:OutputReference)? extends cdktn\.ComplexObject \{(.*?)^\}", text, re.S | re.M))
        own = re.search(r"^class \w+ extends cdktn\.Terraform(?:Resource|DataSource) \{(.*?)^\}", text, re.S | re.M).group(1)
        self.schema = self.block(own.split("synthesizeHclAttributes()", 1)[1], flags_of(own))

    def struct(self, mapper: str) -> dict:
        return self.block(self.mappers[mapper], flags_of(self.classes.get(mapper[0].upper() + mapper[1:], "")))

    def block(self, entries: str, flags: dict) -> dict:
        attributes, blocks = {}, {}
        for name, value, is_block, kind, storage in ENTRY.findall(entries):
            flag = flags.pop(name, None)
            if flag is None:
                raise ValueError(f"{name}: no flags")
            flag = {key: flag[key] for key in ("computed", "optional", "required")}
            mapper = re.search(r"(?<!\.)\b(\w+)ToHclTerraform\b", value)
            nesting = {"struct": "single"}.get(kind, kind)
            if mapper and is_block == "true" and not flag["computed"]:
                single = "listMapperHcl" not in value
                blocks[name] = {"nesting": nesting, "required": flag["required"], "single": single, "block": self.struct(mapper.group(1))}
            elif mapper:  # objects that are written as an attribute
                object_ = ["object", object_type(self.struct(mapper.group(1)))]
                attributes[name] = {"type": object_ if nesting == "single" else [nesting, object_], **flag}
            else:
                type_ = TYPES[storage]
                attributes[name] = {"type": ["set", type_[1]] if kind == "set" else type_, **flag}
        for name, flag in flags.items():
            if flag["optional"] or flag["required"]:
                raise ValueError(f"{name}: flags, but no entry")
            attributes[name] = {"type": self.read_type(flag["getter"]), "computed": True, "optional": False, "required": False}
        return {"attributes": attributes, "blocks": blocks}

    def read_type(self, getter):
        """The type of what can only be read."""
        if not isinstance(getter, tuple):
            return GETTERS.get(getter, "dynamic")
        class_, wrapping, wraps_set = getter
        if class_.startswith("cdktn."):
            return [wrapping.lower(), {"cdktn.String": "string", "cdktn.Number": "number", "cdktn.Boolean": "bool"}.get(class_, "dynamic")]
        object_ = ["object", {name: self.read_type(flag["getter"]) for name, flag in flags_of(self.classes[class_]).items()}]
        return object_ if wrapping == "OutputReference" else [{"List": "list", "Map": "map"}[wrapping] if wraps_set != "true" else "set", object_]


def object_type(block: dict) -> dict:
    inner = {name: a["type"] for name, a in block["attributes"].items()}
    for name, b in block["blocks"].items():
        object_ = ["object", object_type(b["block"])]
        inner[name] = object_ if b["nesting"] == "single" else [b["nesting"], object_]
    return inner


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    wheel = zipfile.ZipFile(arguments[0])
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    version = re.search(r"hashicorp/aws provider version ([\d.]+)", metadata).group(1)
    schema = {"version": version, "resources": {}, "data_sources": {}, "unread": {}}
    with wheel.open(next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))) as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        for member in tar:
            path = re.fullmatch(r"package/lib/([\w-]+)/index\.js", member.name)
            if not path or path.group(1) == "provider":
                continue
            text = tar.extractfile(member).read().decode()
            try:
                found = Module(text)
            except (AttributeError, KeyError, ValueError) as error:
                schema["unread"][path.group(1)] = f"{type(error).__name__}: {error}"
                continue
            kind = "data_sources" if path.group(1).startswith("data-aws-") else "resources"
            schema[kind][found.name] = found.schema
    with open(arguments[1], "w", encoding="ascii") as file:
        json.dump(schema, file, sort_keys=True)
    print(f"provider {version}: {len(schema['resources'])} resources, {len(schema['data_sources'])} data sources, {len(schema['unread'])} not understood")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
