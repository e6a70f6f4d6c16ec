//! CAs and certificates that OpenSSL makes.

use keyferry_tests::openssl::{make_key, openssl};
use keyferry_tests::tokens::Scratch;

use crate::file;

/// The extensions of a CA that sets no limit to the chain below it.
pub(crate) const CA: &str = "basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
";
/// The extensions of a device.
pub(crate) const OF_DEVICE: &str = "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
authorityKeyIdentifier=keyid
";
/// The subject of [`DEVICE`], as OpenSSL takes it.
pub(crate) const SUBJECT: &str = "/serialNumber=d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5";

pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub(crate) const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

/// A CA of OpenSSL's.
pub(crate) struct Made<'s> {
    pub(crate) scratch: &'s Scratch,
    pub(crate) key: String,
    pub(crate) certificate: String,
}

impl<'s> Made<'s> {
    /// A CA that has signed itself.
    pub(crate) fn new(
        scratch: &'s Scratch,
        name: &str,
        algorithm: &[&str],
        extensions: &str,
    ) -> Self {
        let (key, _) = make_key(scratch, name, algorithm);
        let certificate = scratch.path(&format!("{name}.crt")).display().to_string();
        let configuration =
            format!("[req]\ndistinguished_name=dn\nx509_extensions=x\n[dn]\n[x]\n{extensions}");
        let configuration = file(scratch, "ca.cnf", configuration);
        let subject = format!("/CN={name}");
        let arguments = [
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-config",
            &configuration,
        ];
        let rest = ["-subj", &subject, "-days", "100", "-out", &certificate];
        openssl(&[&arguments[..], &rest].concat(), b"");
        Self {
            scratch,
            key,
            certificate,
        }
    }

    /// Signs a request; gives DER.
    pub(crate) fn sign(&self, request: &str, extensions: &str, more: &[&str]) -> Vec<u8> {
        let extensions = file(self.scratch, "sign.cnf", extensions);
        let arguments = ["x509", "-req", "-in", request, "-CA", &self.certificate];
        let rest = [
            "-CAkey",
            &self.key,
            "-days",
            "50",
            "-extfile",
            &extensions,
            "-outform",
            "DER",
        ];
        let number = ["-set_serial", "0x4711471147114711"];
        openssl(&[&arguments[..], &rest, &number, more].concat(), b"")
    }

    /// Certifies the key of `device.key` in this folder.
    pub(crate) fn device(&self, subject: &str, extensions: &str, more: &[&str]) -> Vec<u8> {
        let request = device_request(self.scratch, subject);
        self.sign(&request, extensions, more)
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        std::fs::read(&self.certificate).unwrap()
    }
}

/// A request for the key of `device.key`, which is made if it is not there.
fn device_request(scratch: &Scratch, subject: &str) -> String {
    let key = scratch.path("device.key").display().to_string();
    if !scratch.path("device.key").exists() {
        let _ = make_key(scratch, "device", P256);
    }
    let request = scratch.path("device.csr").display().to_string();
    let configuration = file(
        scratch,
        "device.cnf",
        "[req]\ndistinguished_name=dn\n[dn]\n",
    );
    let arguments = ["req", "-new", "-key", &key, "-subj", subject];
    openssl(
        &[
            &arguments[..],
            &["-config", &configuration, "-out", &request],
        ]
        .concat(),
        b"",
    );
    request
}

/// The public key of `device.key`.
pub(crate) fn device_key(scratch: &Scratch) -> Vec<u8> {
    let key = scratch.path("device.key").display().to_string();
    openssl(&["pkey", "-in", &key, "-pubout", "-outform", "DER"], b"")
}
