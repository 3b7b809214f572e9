"""What a stock Trustee does with a passport, in code that is not ours (PyJWT, cryptography).

Reads {"jwks", "token", "secret"} from standard input. Prints {"claims", "jwe", "rsa1_5", "thumbprints"}, or ends with an error.
"""

import base64
import hashlib
import json
import os
import sys

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text):
    return int.from_bytes(unb64(text), "big")


def thumbprint(jwk):
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return b64(hashlib.sha256(canonical.encode()).digest())


def verify(jwks, token):
    """By the header's kid alone; the JWK has to say its algorithm; exp is required and nothing else is looked at."""
    header = jwt.get_unverified_header(token)
    if "jwk" in header:
        raise SystemExit("a key in the header: a stock broker would want a certificate for it")
    [jwk] = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    return jwt.decode(
        token,
        jwt.PyJWK(jwk).key,
        algorithms=[jwk["alg"]],
        options={"require": ["exp"], "verify_aud": False, "verify_iat": False},
    )


def wrap(key, secret):
    """RFC 7516 with RFC 7518 §4.3 or §4.6, as the release of a resource."""
    cek = AESGCM.generate_key(256)
    header = {"alg": key["alg"], "enc": "A256GCM"}
    if key["kty"] == "EC":
        public = ec.EllipticCurvePublicNumbers(number(key["x"]), number(key["y"]), ec.SECP256R1())
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        shared = ephemeral.exchange(ec.ECDH(), public.public_key())
        algorithm = b"ECDH-ES+A256KW"
        info = len(algorithm).to_bytes(4, "big") + algorithm + bytes(8) + (256).to_bytes(4, "big")
        kek = ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)
        wrapped = aes_key_wrap(kek, cek)
        point = ephemeral.public_key().public_numbers()
        x, y = (b64(n.to_bytes(32, "big")) for n in (point.x, point.y))
        header["epk"] = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    elif key["alg"] == "RSA1_5":
        public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
        wrapped = public.encrypt(cek, padding.PKCS1v15())
    else:
        public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        wrapped = public.encrypt(cek, oaep)
    protected = b64(json.dumps(header, separators=(",", ":")).encode())
    iv = os.urandom(12)
    sealed = AESGCM(cek).encrypt(iv, secret, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64(wrapped),
        "iv": b64(iv),
        "ciphertext": b64(sealed[:-16]),
        "tag": b64(sealed[-16:]),
    }


asked = json.load(sys.stdin)
claims = verify(asked["jwks"], asked["token"])
recipient = claims["tee-pubkey"]
# As a broker that still wraps with the padding of PKCS #1 v1.5.
outdated = dict(recipient, alg="RSA1_5") if recipient["kty"] == "RSA" else None
print(
    json.dumps(
        {
            "claims": claims,
            "jwe": wrap(recipient, asked["secret"].encode()),
            "rsa1_5": outdated and wrap(outdated, asked["secret"].encode()),
            "thumbprints": [thumbprint(key) for key in asked["jwks"]["keys"]],
        }
    )
)
