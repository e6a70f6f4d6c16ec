//! The keys of a station that sign.

use std::time::SystemTime;

use crate::certificate::{CaCertificate, CertificateError, Identity, Issuer, Serial};
use crate::device::flow::Authority;
use crate::device::verify::Statement;
use crate::hsm::{HsmError, KeyInfo, KeySpec, Token};

/// A key on a token that signs, with a session of its own.
pub struct TokenSigner {
    token: Token,
    key: KeyInfo,
    public: Vec<u8>,
}

impl TokenSigner {
    /// The key's pair must be on the token.
    ///
    /// # Errors
    /// [`HsmError::NoPublicKey`].
    pub fn new(token: Token, key: KeyInfo) -> Result<Self, HsmError> {
        let public = key.public_key()?.spki_der().to_vec();
        Ok(Self { token, key, public })
    }

    /// The key of this name on the token, in a session of its own.
    ///
    /// # Errors
    /// Those of [`Token::key`] and [`Token::another_session`], [`HsmError::NoPublicKey`].
    pub fn named(token: &Token, spec: &KeySpec) -> Result<Self, HsmError> {
        let key = token.key(spec)?;
        Self::new(token.another_session()?, key)
    }

    /// The same key in a further session.
    fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            token: self.token.another_session()?,
            key: self.key.clone(),
            public: self.public.clone(),
        })
    }
}

impl Authority for TokenSigner {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        self.token
            .sign_p256(&self.key, message)
            .map_err(|error| Box::new(error).into())
    }
}

/// The factory's CA: its key on a token, and its certificate.
pub struct Ca {
    signer: TokenSigner,
    certificate: CaCertificate,
    organization: Option<String>,
}

impl Ca {
    /// Brings key and certificate together. `organization` goes into the subject of every device certificate.
    ///
    /// # Errors
    /// [`CertificateError::OtherCaKey`] if they do not belong together.
    pub fn new(
        signer: TokenSigner,
        certificate: CaCertificate,
        organization: Option<String>,
    ) -> Result<Self, CertificateError> {
        Issuer::new(&signer, certificate.clone())?;
        Ok(Self {
            signer,
            certificate,
            organization,
        })
    }

    /// The same in a further session.
    fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            signer: self.signer.another()?,
            certificate: self.certificate.clone(),
            organization: self.organization.clone(),
        })
    }

    /// The certificate of a device's identity key, in DER.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn certify(
        &self,
        device: &Statement,
        serial: Option<&str>,
    ) -> Result<Vec<u8>, CertificateError> {
        let serial = match serial {
            Some(text) => Serial::product(text)?,
            None => Serial::from(device.device),
        };
        let identity = Identity {
            serial,
            organization: self.organization.as_deref(),
            common_name: Some(&device.board),
            key: &device.identity_key,
        };
        Issuer::new(&self.signer, self.certificate.clone())?.issue(&identity, SystemTime::now())
    }
}

/// The keys that sign, each where it lives.
pub struct Signers {
    /// Signs orders.
    pub authority: TokenSigner,
    /// Signs checkpoints of the audit log.
    pub auditor: Option<TokenSigner>,
    /// Signs certificates of devices.
    pub ca: Option<Ca>,
}

impl Signers {
    /// The same keys in sessions of their own.
    pub(super) fn another(&self) -> Result<Self, HsmError> {
        Ok(Self {
            authority: self.authority.another()?,
            auditor: self
                .auditor
                .as_ref()
                .map(TokenSigner::another)
                .transpose()?,
            ca: self.ca.as_ref().map(Ca::another).transpose()?,
        })
    }
}
