//! Certificates and keys, read and matched before anything is connected.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore};

use crate::{Error, ErrorKind, Result};

/// The only application protocol of a gRPC client (RFC 7301, RFC 9113).
pub(super) const HTTP2: &[u8] = b"h2";

/// PEM text and what to call it in messages. Its content is never shown: it may be a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    name: String,
    text: Vec<u8>,
}

impl Pem {
    /// `text`, called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The content of a file, called by its path. Nothing is parsed yet.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        match std::fs::read(path) {
            Ok(text) => Ok(Self::new(path.display().to_string(), text)),
            Err(source) => Err(TlsError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// The certificates in it, in order; at least one. What else is in it does not matter.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let found = found.map_err(|e| self.malformed(&e))?;
        if found.is_empty() { Err(TlsError::NoCertificate { name: self.name.clone() }) } else { Ok(found) }
    }

    /// The first private key in it.
    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|e| match e {
            PemError::NoItemsFound => TlsError::NoPrivateKey { name: self.name.clone() },
            e => self.malformed(&e),
        })
    }

    /// Says what is wrong without repeating any of the text.
    fn malformed(&self, error: &PemError) -> TlsError {
        let reason = match error {
            PemError::MissingSectionEnd { .. } => "a line -----END …----- is missing",
            PemError::IllegalSectionStart { .. } => "a line -----BEGIN …----- is broken",
            PemError::Base64Decode(_) => "between -----BEGIN …----- and -----END …----- is something else than base64",
            _ => "it is no PEM",
        };
        TlsError::Malformed { name: self.name.clone(), reason }
    }
}

/// The name and the size.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({:?}, {} bytes)", self.name, self.text.len())
    }
}

/// Why certificates or keys cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file could not be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text is broken.
    #[error("{name}: {reason}")]
    Malformed {
        /// The file.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no certificate where one is needed.
    #[error("{name} has no certificate, which in PEM begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// The file.
        name: String,
    },
    /// There is no private key where one is needed.
    #[error("{name} has no private key in a form that can be used: PKCS #8, PKCS #1 or SEC 1, not encrypted")]
    NoPrivateKey {
        /// The file.
        name: String,
    },
    /// A certificate is not what a certificate should be.
    #[error("{name}: certificate {number} cannot be used: {reason}")]
    Certificate {
        /// The file.
        name: String,
        /// Which one of the file, from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// A private key is of a kind that is not supported.
    #[error("{name}: the private key cannot be used: {reason}")]
    PrivateKey {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The private key is not that of the certificate.
    #[error("the private key in {key} does not belong to the first certificate in {certificate}")]
    Mismatch {
        /// The file with the certificate.
        certificate: String,
        /// The file with the key.
        key: String,
    },
}

/// Whom a client trusts, and who it is, where a connection uses TLS.
///
/// By default services must have a certificate that the system trusts, and the
/// client has none of its own. Whatever is added was parsed, so what is here
/// can be used. Keys are not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsMaterial {
    authorities: Option<Arc<Vec<CertificateDer<'static>>>>,
    identity: Option<Arc<Identity>>,
}

/// A chain of certificates, our own first, and its key.
#[derive(PartialEq, Eq, Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsMaterial {
    /// Trusts services whose certificate was issued by one of `certificates`, instead of those that the system trusts.
    ///
    /// An authority's own certificate is refused as that of a service, and so is one that names its host only as
    /// its subject: a certificate made with `openssl req -x509` needs `basicConstraints=CA:FALSE` and `subjectAltName`.
    ///
    /// # Errors
    /// When there is no certificate, or one cannot be used: nothing is left out silently.
    pub fn with_authorities(self, certificates: &Pem) -> Result<Self, TlsError> {
        let authorities = certificates.certificates()?;
        for (index, certificate) in authorities.iter().enumerate() {
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|e| certificate_error(certificates, index + 1, &e))?;
        }
        Ok(Self { authorities: Some(Arc::new(authorities)), ..self })
    }

    /// Has the client show who it is, to services that ask (mutual TLS).
    ///
    /// `certificates` begins with the client's own, followed by those that
    /// lead from it to an authority, where there are any.
    ///
    /// # Errors
    /// When one of them has nothing usable, or the key is not that of the first certificate.
    pub fn with_identity(self, certificates: &Pem, key: &Pem) -> Result<Self, TlsError> {
        let identity = Identity { chain: certificates.certificates()?, key: key.private_key()? };
        match CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &ring::default_provider()) {
            Ok(_) => Ok(Self { identity: Some(Arc::new(identity)), ..self }),
            Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(TlsError::Mismatch { certificate: certificates.name.clone(), key: key.name.clone() })
            }
            Err(e @ RustlsError::InvalidCertificate(_)) => Err(certificate_error(certificates, 1, &e)),
            Err(e) => Err(TlsError::PrivateKey { name: key.name.clone(), reason: e.to_string() }),
        }
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a handshake goes by. Reads the system's certificates if no others were given.
    ///
    /// # Errors
    /// `Invalid` when there is nobody to trust.
    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        let invalid = |e: RustlsError| Error::new(ErrorKind::Invalid, "connect", e.to_string());
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(certificates) => {
                roots.add_parsable_certificates(certificates.iter().cloned());
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                for error in &system.errors {
                    tracing::debug!(%error, "certificates of the system");
                }
                roots.add_parsable_certificates(system.certs);
            }
        }
        if roots.is_empty() {
            let reason = "this system trusts no certificates: install them (the package ca-certificates), \
                          or give those that the service's certificate is to be checked against";
            return Err(Error::new(ErrorKind::Invalid, "connect", reason));
        }
        // Stated, since programs may link several providers without choosing one.
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(invalid)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(config)
    }
}

fn certificate_error(pem: &Pem, number: usize, error: &RustlsError) -> TlsError {
    TlsError::Certificate { name: pem.name.clone(), number, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    /// A certificate and its key.
    fn issued() -> (Pem, Pem) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["client".to_owned()]).unwrap().self_signed(&key).unwrap();
        (Pem::new("own.crt", certificate.pem()), Pem::new("own.key", key.serialize_pem()))
    }

    fn refusal(certificate: &Pem, key: &Pem) -> String {
        TlsMaterial::default().with_identity(certificate, key).unwrap_err().to_string()
    }

    #[test]
    fn a_key_has_to_be_that_of_the_certificate() {
        let (certificate, key) = issued();
        let (_, other) = issued();
        assert!(!TlsMaterial::default().with_identity(&certificate, &key).unwrap().is_empty());
        let message = refusal(&certificate, &other);
        assert_eq!(message, "the private key in own.key does not belong to the first certificate in own.crt");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_file() {
        let (certificate, key) = issued();
        let pem = |text: &str| Pem::new("bad.pem", text);
        let wrap = |label: &str, body: &str| pem(&format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"));
        for (message, expected) in [
            (refusal(&pem(""), &key), "bad.pem has no certificate"),
            (refusal(&key, &key), "own.key has no certificate"),
            (refusal(&certificate, &certificate), "own.crt has no private key"),
            (refusal(&certificate, &wrap("ENCRYPTED PRIVATE KEY", "AAAA")), "bad.pem has no private key"),
            (refusal(&wrap("CERTIFICATE", "%"), &key), "bad.pem: between -----BEGIN …----- and"),
            (refusal(&pem("-----BEGIN CERTIFICATE-----\nAAAA\n"), &key), "bad.pem: a line -----END …----- is missing"),
            (refusal(&wrap("CERTIFICATE", "AAAA"), &key), "bad.pem: certificate 1 cannot be used"),
            (refusal(&certificate, &wrap("PRIVATE KEY", "AAAA")), "bad.pem: the private key cannot be used"),
        ] {
            assert!(message.starts_with(expected), "{message} instead of {expected}");
        }
        let message = Pem::read("/nowhere/ca.pem").unwrap_err().to_string();
        assert_eq!(message, "/nowhere/ca.pem cannot be read");
    }

    #[test]
    fn one_bad_authority_among_good_ones_is_found() {
        let mut text = issued().0.text;
        text.extend(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let error = TlsMaterial::default().with_authorities(&Pem::new("ca.pem", text)).unwrap_err();
        assert!(matches!(error, TlsError::Certificate { number: 2, .. }), "{error}");
    }

    #[test]
    fn keys_are_not_shown() {
        let (certificate, key) = issued();
        let secret = String::from_utf8(key.text.clone()).unwrap();
        let body = secret.lines().nth(1).unwrap();
        let material = TlsMaterial::default().with_identity(&certificate, &key).unwrap();
        let bytes = format!("{:?}", material.identity.as_ref().unwrap().key.secret_der());
        let shown = format!("{key:?} {material:?}");
        assert!(!shown.contains(body) && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
        let broken = Pem::new("own.key", secret.replace("-----END", "----END"));
        assert!(!format!("{:?}", broken.private_key().unwrap_err()).contains(body));
    }

    proptest! {
        #[test]
        fn no_text_panics(
            label in "(CERTIFICATE|PRIVATE KEY|RSA PRIVATE KEY|EC PRIVATE KEY|\\PC*)",
            body in "([A-Za-z0-9+/]{4}){0,20}(=|\\PC*)",
            rest: Vec<u8>,
        ) {
            let mut text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes();
            text.extend(rest);
            let pem = Pem::new("x", text);
            let _ = TlsMaterial::default().with_authorities(&pem);
            let _ = TlsMaterial::default().with_identity(&pem, &pem);
            let (certificate, key) = issued();
            let _ = TlsMaterial::default().with_identity(&certificate, &pem);
            let _ = TlsMaterial::default().with_identity(&pem, &key);
        }

        #[test]
        fn no_change_panics(at: prop::sample::Index, byte: u8) {
            let (certificate, key) = issued();
            for (mut changed, other) in [(certificate.clone(), &key), (key.clone(), &certificate)] {
                let at = at.index(changed.text.len());
                changed.text[at] = byte;
                let _ = TlsMaterial::default().with_authorities(&changed);
                let _ = TlsMaterial::default().with_identity(&changed, other);
                let _ = TlsMaterial::default().with_identity(other, &changed);
            }
        }
    }
}
