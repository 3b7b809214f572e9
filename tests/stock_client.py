"""A stock client's side of the protocol, in code that is not ours (cryptography): keys, runtime data, and opening.

Reads {"algorithm", "nonce"} and prints {"jwk", "spki", "runtime_data_sha384"}; then reads one line with the JWE and prints
the secret in hexadecimal, or ends with an error.
"""

import base64
import hashlib
import json
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def big(number):
    return b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


asked = json.loads(sys.stdin.readline())
if asked["algorithm"] == "EC":
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_numbers()
    x, y = (b64(n.to_bytes(32, "big")) for n in (point.x, point.y))
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": x, "y": y}
else:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": big(numbers.n), "e": big(numbers.e)}

# RFC 8785 of members that are all ASCII text.
runtime = {"additional-evidence": "", "nonce": asked["nonce"], "tee-pubkey": jwk}
canonical = json.dumps(runtime, sort_keys=True, separators=(",", ":"))
spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
digest = hashlib.sha384(canonical.encode()).hexdigest()
print(json.dumps({"jwk": jwk, "spki": spki.hex(), "runtime_data_sha384": digest}), flush=True)

jwe = json.loads(sys.stdin.readline())
assert set(jwe) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}, sorted(jwe)
header = json.loads(unb64(jwe["protected"]))
assert header["alg"] == jwk["alg"] and header["enc"] == "A256GCM", header
wrapped = unb64(jwe["encrypted_key"])
if asked["algorithm"] == "EC":
    epk = header["epk"]
    number = lambda name: int.from_bytes(unb64(epk[name]), "big")
    theirs = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1()).public_key()
    algorithm = b"ECDH-ES+A256KW"
    info = len(algorithm).to_bytes(4, "big") + algorithm + bytes(8) + (256).to_bytes(4, "big")
    kek = ConcatKDFHash(hashes.SHA256(), 32, info).derive(private.exchange(ec.ECDH(), theirs))
    cek = aes_key_unwrap(kek, wrapped)
else:
    cek = private.decrypt(wrapped, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))

# A stock client writes the header anew: `alg`, `enc`, then the rest in the order of the alphabet.
order = ["alg", "enc"] + sorted(set(header) - {"alg", "enc"})
again = {name: header[name] for name in order}
if "epk" in again:
    again["epk"] = dict(sorted(again["epk"].items()))
aad = b64(json.dumps(again, separators=(",", ":")).encode()).encode()
print(AESGCM(cek).decrypt(unb64(jwe["iv"]), unb64(jwe["ciphertext"]) + unb64(jwe["tag"]), aad).hex())
