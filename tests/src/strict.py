"""Opens a wrapped key with pyca/cryptography, as a strict importer would.

Reads one JSON object from stdin: recipient (its private key, PEM), suite, blob (hexadecimal), class ("secret" or
"private"), cut (whether a zero tail behind the DER of a private key is cut off first). Writes one JSON object: what the
key is, or "error" with the reason why it was refused.
"""

import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF


class Refused(Exception):
    """The key is not what an importer takes."""


def open_kek(recipient, suite, blob):
    """Gives the KEK and the wrapped key."""
    if suite in ("rsa-oaep-sha1", "rsa-oaep-sha256"):
        digest = hashes.SHA1 if suite == "rsa-oaep-sha1" else hashes.SHA256
        length = recipient.key_size // 8
        oaep = padding.OAEP(padding.MGF1(digest()), digest(), None)
        return recipient.decrypt(blob[:length], oaep), blob[length:]
    if suite in ("ecdh-p256-x963-sha256", "ecdh-p256-null"):
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), blob[:65])
        kek = recipient.exchange(ec.ECDH(), point)
        if suite == "ecdh-p256-x963-sha256":
            spki = recipient.public_key().public_bytes(
                serialization.Encoding.DER,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
            info = b"keyferry ecdhkek\x02" + hashlib.sha256(spki).digest()
            kek = X963KDF(hashes.SHA256(), 32, info).derive(kek)
        return kek, blob[65:]
    raise Refused(f"suite {suite} is not known here")


def der_length(der):
    """Gives the length of the DER SEQUENCE at the beginning, with its head."""
    if len(der) < 2 or der[0] != 0x30:
        raise Refused("this is no DER SEQUENCE")
    if der[1] < 0x80:
        return 2 + der[1]
    count = der[1] & 0x7F
    octets = der[2 : 2 + count]
    length = int.from_bytes(octets, "big")
    if not octets or octets[0] == 0 or length < 0x80:
        raise Refused("the length is not in DER")
    return 2 + count + length


def without_tail(der, cut):
    """Cuts a zero tail if it may. The loader of pyca/cryptography does not mind a tail, whatever it is; importers do."""
    length = der_length(der)
    key, tail = der[:length], der[length:]
    if len(key) < length:
        raise Refused("the DER SEQUENCE is cut short")
    if tail and not cut:
        raise Refused(f"{len(tail)} bytes follow the DER SEQUENCE")
    if len(tail) >= 8 or any(tail):
        raise Refused("what follows the DER SEQUENCE is no filling")
    return key


def check_pair(key):
    """Signs with the private numbers and verifies with the public ones."""
    message = b"these two belong together"
    if isinstance(key, rsa.RSAPrivateKey):
        how = (padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        how = (ec.ECDSA(hashes.SHA256()),)
    else:
        how = ()
    key.public_key().verify(key.sign(message, *how), message, *how)


def name(key):
    """Gives algorithm and size in the words of keyferry's command line."""
    if isinstance(key, rsa.RSAPrivateKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curves = {"secp256r1": "p-256", "secp384r1": "p-384"}
        if key.curve.name in curves:
            return curves[key.curve.name]
    raise Refused("a key of another type")


def open_key(request):
    """Gives what the key is."""
    recipient = serialization.load_pem_private_key(request["recipient"].encode(), None)
    kek, wrapped = open_kek(recipient, request["suite"], bytes.fromhex(request["blob"]))
    if len(kek) != 32:
        raise Refused(f"the KEK has {len(kek)} bytes")
    clear = keywrap.aes_key_unwrap_with_padding(kek, wrapped)
    if request["class"] == "secret":
        return {"secret": clear.hex()}
    key = serialization.load_der_private_key(without_tail(clear, request["cut"]), None)
    check_pair(key)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"type": name(key), "spki": spki.hex()}


def main():
    """Answers one request."""
    try:
        answer = open_key(json.load(sys.stdin))
    except (Refused, ValueError, keywrap.InvalidUnwrap, InvalidSignature) as error:
        answer = {"error": str(error) or type(error).__name__}
    json.dump(answer, sys.stdout)


main()
