//! Certificates made for one test.

use cas_client::grpc::{Pem, TlsMaterial};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a host or a client of this name.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> Pem {
        Pem::new("ca.pem", self.0.pem())
    }

    /// Trusts this authority only.
    pub(crate) fn trusted(&self) -> TlsMaterial {
        TlsMaterial::default().with_authorities(&self.pem()).unwrap()
    }

    /// A server at 127.0.0.1 with a certificate of this authority.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        let Issued { certificate, key } = self.issue("127.0.0.1");
        ServerTlsConfig::new().identity(Identity::from_pem(certificate, key))
    }

    /// The same, for clients only that have one, too.
    pub(crate) fn server_for_known_clients(&self) -> ServerTlsConfig {
        self.server().client_ca_root(Certificate::from_pem(self.0.pem()))
    }
}

impl Issued {
    pub(crate) fn certificate(&self) -> Pem {
        Pem::new("client.crt", self.certificate.clone())
    }

    pub(crate) fn key(&self) -> Pem {
        Pem::new("client.key", self.key.clone())
    }
}
