#!/usr/bin/env python3
"""Runs Terraform with the AWS provider's schema and without AWS, so that `validate` and `plan` are Terraform's own.

  provider.py SCHEMA.json COMMAND [ARGUMENT...]

Serves the plugin protocol (tfplugin6) on a socket, names it to COMMAND through TF_REATTACH_PROVIDERS, and ends with COMMAND's status.
It knows what attributes there are and makes up nothing: what AWS would fill in stays "known after apply" in a plan. `apply` is for
the tests of our scripts; it invents an ID and keeps nothing.

Messages are written by hand: there are nine, of few fields, and generated code would pin us to one protobuf release.
"""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from concurrent import futures

import grpc
import msgpack

SERVICE = "tfplugin6.Provider"
ADDRESS = "hashicorp/aws"
NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
PROVIDER = {"region": "string", "profile": "string", "allowed_account_ids": ["set", "string"]}
# Data sources whose values the configuration needs to go on planning; account and region as in Amazon's documentation, the instance type m7i.2xlarge.
KNOWN = {
    "aws_caller_identity": {"account_id": "111122223333", "arn": "arn:aws:iam::111122223333:user/test", "user_id": "test"},
    "aws_partition": {"partition": "aws", "dns_suffix": "amazonaws.com"},
    "aws_region": {"region": "eu-central-1", "name": "eu-central-1"},
    "aws_ssm_parameter": {"value": "ami-0123456789abcdef0", "insecure_value": "ami-0123456789abcdef0"},
    "aws_ec2_instance_type": {"default_vcpus": 8, "memory_size": 32768, "default_threads_per_core": 2, "supported_architectures": ["x86_64"],
                              "nitro_enclaves_support": "supported"},
}


# --- protobuf -------------------------------------------------------------------------------------------------------

def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def put(number: int, value) -> bytes:
    """One field; zeros are not written, empty messages are."""
    if isinstance(value, (bool, int)):
        return varint(number << 3) + varint(int(value)) if value else b""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data: bytes) -> dict[int, bytes]:
    """The last value of each length-delimited field; Terraform sends no other kind that matters here."""
    found, at = {}, 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        value = number()
        if key & 7 == 2:
            found[key >> 3] = data[at:at + value]
            at += value
    return found


# --- schema ---------------------------------------------------------------------------------------------------------

def block(schema: dict) -> bytes:
    out = b""
    for name, a in sorted(schema["attributes"].items()):
        out += put(2, put(1, name) + put(2, json.dumps(a["type"])) + put(4, a["required"]) + put(5, a["optional"]) + put(6, a["computed"]))
    for name, b in sorted(schema["blocks"].items()):
        limits = b"" if b["nesting"] == "single" else put(4, int(b["required"])) + put(5, int(b["single"]))
        out += put(3, put(1, name) + put(2, block(b["block"])) + put(3, NESTING[b["nesting"]]) + limits)
    return out


def schemas(number: int, types: dict) -> bytes:
    return b"".join(put(number, put(1, name) + put(2, put(2, block(schema)))) for name, schema in sorted(types.items()))


# --- values ---------------------------------------------------------------------------------------------------------

UNKNOWN = msgpack.ExtType(0, b"\0")


def decode(dynamic: bytes):
    found = fields(dynamic)
    return msgpack.unpackb(found[1], strict_map_key=False) if 1 in found else json.loads(found[2])


def encode(value) -> bytes:
    return put(1, msgpack.packb(value))


def fill(schema: dict, value, known: dict, made):
    """What the configuration leaves to the provider, by `known` or else by `made(name)`."""
    if not isinstance(value, dict):
        return value
    out = dict(value)
    for name, a in schema["attributes"].items():
        if a["computed"] and out.get(name) is None:
            out[name] = known.get(name) or made(name, a["type"])
    for name, b in schema["blocks"].items():
        inner = out.get(name)
        if isinstance(inner, list):
            out[name] = [fill(b["block"], item, {}, made) for item in inner]
        elif isinstance(inner, dict):
            out[name] = fill(b["block"], inner, {}, made)
    return out


def settled(value):
    """Without what was unknown, for `fill` to come to."""
    if isinstance(value, msgpack.ExtType):
        return None
    if isinstance(value, dict):
        return {name: settled(inner) for name, inner in value.items()}
    return [settled(inner) for inner in value] if isinstance(value, list) else value


def invented(name: str, type_):
    """A value of the right type for `apply`."""
    if isinstance(type_, list):
        return {inner: invented(inner, t) for inner, t in type_[1].items()} if type_[0] == "object" else {} if type_[0] == "map" else []
    return {"string": f"test-{name}", "number": 1, "bool": False}.get(type_)


class Provider(grpc.GenericRpcHandler):
    def __init__(self, schema: dict, named: set[str]):
        self.resources, self.data = ({n: s for n, s in schema[k].items() if n in named} for k in ("resources", "data_sources"))

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        answer = getattr(self, method, None)
        if not details.method.startswith(f"/{SERVICE}/") or answer is None:
            return None  # UNIMPLEMENTED, which Terraform reports by name
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: answer(fields(request)))

    def GetProviderSchema(self, _request):
        own = put(2, b"".join(put(2, put(1, n) + put(2, json.dumps(t)) + put(5, True)) for n, t in PROVIDER.items()) + put(3, put(1, "default_tags") + put(
            2, put(2, put(1, "tags") + put(2, json.dumps(["map", "string"])) + put(5, True))) + put(3, 2) + put(5, 1)))
        return put(1, own) + schemas(2, self.resources) + schemas(3, self.data)

    def ValidateProviderConfig(self, _request):
        return b""

    ValidateResourceConfig = ValidateDataResourceConfig = ConfigureProvider = StopProvider = ValidateProviderConfig

    def UpgradeResourceState(self, request):
        return put(1, put(2, fields(request[3])[1]))

    def ReadResource(self, request):
        return put(1, request[2])

    def PlanResourceChange(self, request):
        proposed = decode(request[3])
        made = lambda _name, _type: UNKNOWN  # noqa: E731
        return put(1, encode(fill(self.resources[request[1].decode()], proposed, {}, made))) + put(5, True)

    def ApplyResourceChange(self, request):
        type_ = request[1].decode()
        planned = settled(decode(request[3]))
        one = hashlib.sha256(json.dumps(planned, sort_keys=True).encode()).hexdigest()[:12]
        known = {"id": f"{type_}-{one}", "arn": f"arn:aws:test:eu-central-1:111122223333:{type_}/{one}"}
        return put(1, encode(planned and fill(self.resources[type_], planned, known, invented))) + put(4, True)

    def ReadDataSource(self, request):
        name = request[1].decode()
        return put(1, encode(fill(self.data[name], decode(request[2]), KNOWN[name], invented)))


def named_in(directory: pathlib.Path) -> set[str]:
    """The types that the configuration names: Terraform would take seconds for all 2,400, at each of its steps."""
    texts = (file.read_text() for file in directory.rglob("*.tf") if ".terraform" not in file.parts)
    return {name for text in texts for name in re.findall(r'"(aws_\w+)"', text)}


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    with open(arguments[0], encoding="ascii") as file:
        provider = Provider(json.load(file), named_in(pathlib.Path(".")))
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/provider.sock"
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)])
        server.add_generic_rpc_handlers([provider])
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        reattach = {ADDRESS: {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": {"Network": "unix", "String": socket}}}
        status = subprocess.run(arguments[1:], env={**os.environ, "TF_REATTACH_PROVIDERS": json.dumps(reattach)}, check=False).returncode
        server.stop(None)
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
