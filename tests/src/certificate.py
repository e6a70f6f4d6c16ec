"""Reads an X.509 certificate with pyca/cryptography and verifies it with the key of its CA.

Reads one JSON object from stdin: certificate and ca, both DER in hexadecimal digits. Writes one JSON object: what the
certificate says, or "error" with the name of the exception.
"""

import hashlib
import json
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def identifier(key):
    """Computes the identifier of a key (RFC 7093, method 1)."""
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return hashlib.sha256(point).digest()[:20].hex()


def read(request):
    """Gives what is in the certificate."""
    certificate = x509.load_der_x509_certificate(bytes.fromhex(request["certificate"]))
    ca = x509.load_der_x509_certificate(bytes.fromhex(request["ca"]))
    ca.public_key().verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        ec.ECDSA(certificate.signature_hash_algorithm),
    )
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    numbers = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return {
        "version": certificate.version.value + 1,
        "serial_number": [number.value for number in numbers],
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_after": certificate.not_valid_after.isoformat(),
        "critical": [it.oid.dotted_string for it in extensions if it.critical],
        "ca": constraints.ca,
        "usage": [name for name in USAGES if getattr(usage, name)],
        "spki": certificate.public_key()
        .public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        .hex(),
        "subject_key": own.digest.hex(),
        "expected_subject_key": identifier(certificate.public_key()),
        "authority_key": authority.key_identifier.hex(),
        "expected_authority_key": identifier(ca.public_key()),
    }


def main():
    """Answers one request."""
    try:
        answer = read(json.load(sys.stdin))
    except (ValueError, InvalidSignature, x509.ExtensionNotFound) as error:
        answer = {"error": type(error).__name__}
    json.dump(answer, sys.stdout)


main()
