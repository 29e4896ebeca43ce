//! Certificates and tokens: what is asked for is used, and what cannot be used is said.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use testbed::Server;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::support::Program;

/// A server behind TLS that lets in whoever has a certificate of the authority in `ca.pem`.
struct Secured {
    url: String,
    directory: TempDir,
    _server: Server,
    task: JoinHandle<()>,
}

impl Secured {
    async fn start() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let (client, client_key) = issue("client");
        write("ca.pem", authority.pem());
        write("client.crt", client.pem());
        write("client.key", client_key.serialize_pem());
        write("other.key", KeyPair::generate().unwrap().serialize_pem());
        write("token", "secret\n".to_owned());

        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let (certificate, key) = issue("127.0.0.1");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols.push(b"h2".to_vec());

        let server = Server::start_default().await.unwrap();
        let target = server.url().strip_prefix("http://").unwrap().to_owned();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    // Whoever is not let in was told so.
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, directory, _server: server, task }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn doctor(&self) -> Program {
        Program::new(["doctor", "--json", "--server", &self.url])
    }

    fn known(&self, program: Program) -> Program {
        let options = [("--tls-ca", "ca.pem"), ("--tls-cert", "client.crt"), ("--tls-key", "client.key")];
        options.into_iter().fold(program, |program, (option, name)| program.arg(option).arg(self.file(name)))
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn services_are_reached_over_tls() {
    let secured = Secured::start().await;
    let report = secured.known(secured.doctor()).arg("--token-file").arg(secured.file("token")).json().await;
    assert_eq!(report["ok"], true, "{report:#}");
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["what"] == "storage").unwrap();
    assert!(found["found"].as_str().unwrap().contains(&secured.url), "{report:#}");
}

#[tokio::test]
async fn some_services_may_be_without_tls() {
    let (secured, plain) = (Secured::start().await, Server::start_default().await.unwrap());
    let report = secured.known(secured.doctor()).arg("--cas").arg(plain.url()).json().await;
    assert_eq!(report["ok"], true, "{report:#}");
}

#[tokio::test]
async fn strangers_are_told_apart_on_both_sides() {
    let secured = Secured::start().await;
    let nobody = secured.doctor().arg("--tls-ca").arg(secured.file("ca.pem"));
    let mistaken = secured.doctor().arg("--tls-ca").arg(secured.file("client.crt"));
    for (program, says) in [(nobody, "does not accept this client's certificate"), (mistaken, "UnknownIssuer")] {
        let ran = program.run().await;
        ran.expect_code(1);
        let report = ran.json();
        let found = report["checks"].as_array().unwrap().iter().find(|check| check["what"] == "storage").unwrap();
        let found = found["found"].as_str().unwrap();
        assert!(found.starts_with("denied") && found.contains(says), "{report:#}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let secured = Secured::start().await;
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/1";
    let show = |url: &str| Program::new(["show", "--digest", digest, "--server", url]);
    let ca = secured.file("ca.pem");

    let mismatch = show(&secured.url).arg("--tls-cert").arg(secured.file("client.crt"));
    let mismatch = mismatch.arg("--tls-key").arg(secured.file("other.key")).run().await;
    mismatch.expect_failure(2, &["other.key does not belong to the first certificate in", "client.crt"]);
    let absent = show(&secured.url).args(["--tls-ca", "absent.pem"]).run().await;
    absent.expect_failure(2, &["absent.pem cannot be read", "No such file", "PEM"]);
    let swapped = show(&secured.url).arg("--tls-ca").arg(secured.file("client.key")).run().await;
    swapped.expect_failure(2, &["client.key has no certificate"]);

    for url in ["http://127.0.0.1:1", "unix:casd.sock"] {
        let unused = show(url).arg("--tls-ca").arg(&ca).run().await;
        unused.expect_failure(2, &["--tls-ca", url, "https://"]);
    }
}

#[tokio::test]
async fn tokens_are_not_sent_in_plain_text_nor_shown() {
    let secured = Secured::start().await;
    let token = secured.file("token");
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/1";
    let show = |url: &str| Program::new(["show", "--digest", digest, "--server", url]);
    let option = show("http://127.0.0.1:1").arg("--token-file").arg(&token).run().await;
    option.expect_failure(2, &["--token-file", "http://127.0.0.1:1", "https://"]);
    let variable = show("http://127.0.0.1:1").env("BST_SA_TOKEN_FILE", token.to_str().unwrap()).run().await;
    variable.expect_failure(2, &["BST_SA_TOKEN_FILE"]);

    let absent = show("unix:casd.sock").args(["--token-file", "absent"]).run().await;
    absent.expect_failure(1, &["the token file absent cannot be read", "No such file"]);
    std::fs::write(&token, "not secret").unwrap();
    let words = show("unix:casd.sock").arg("--token-file").arg(&token).run().await;
    words.expect_failure(1, &["one word"]);
    assert!(!words.stderr.contains("secret"), "{words:#?}");
}
