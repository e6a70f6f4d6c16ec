"""Computes the key of one device from a master key, as the backend that holds the master would.

Reads one JSON object from stdin: way, master, device (hexadecimal), slot, version, psa_type, bits. Writes the key in
hexadecimal. Written after the documentation of keyferry's hsm::derive, with pyca/cryptography.
"""

import hashlib
import json
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode


def derive(request):
    """Gives the key."""
    master = bytes.fromhex(request["master"])
    device = bytes.fromhex(request["device"])
    bits = request["bits"]
    context = device + struct.pack(">HIH", request["slot"], request["version"], request["psa_type"])
    if request["way"] == "sp800-108-counter":
        kdf = KBKDFCMAC(
            algorithm=algorithms.AES,
            mode=Mode.CounterMode,
            length=bits // 8,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=b"keyferry devkey",
            context=context,
            fixed=None,
        )
        return kdf.derive(master)
    if request["way"] == "aes-ecb-encrypt-data":
        context += struct.pack(">I", bits)
        data = b"".join(
            hashlib.sha256(b"keyferry devblk\0" + context + struct.pack(">I", index)).digest()[:16]
            for index in (1, 2)
        )
        encryptor = Cipher(algorithms.AES(master), modes.ECB()).encryptor()
        return (encryptor.update(data) + encryptor.finalize())[: bits // 8]
    raise ValueError(request["way"])


print(derive(json.load(sys.stdin)).hex())
