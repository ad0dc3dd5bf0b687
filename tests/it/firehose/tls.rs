//! Over TLS, with a certificate that is replaced while it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{Answer, LINE, Post, body, connect, exchange};
use super::endpoint::{Endpoint, KEY, config, wait_for};

/// Writes a new certificate and its key.
fn certify(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["endpoint.test".to_owned()]).unwrap();
    // As is usual for secrets: written beside, and put in place whole.
    for (name, text) in [("cert.pem", cert.pem()), ("key.pem", signing_key.serialize_pem())] {
        std::fs::write(directory.join("new"), text).unwrap();
        std::fs::rename(directory.join("new"), directory.join(name)).unwrap();
    }
    cert.der().clone()
}

/// Sends a request over TLS to a server that must show this certificate.
fn send(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    post: &Post,
) -> std::io::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("endpoint.test").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    exchange(StreamOwned::new(client, connect(address)?), &post.bytes())
}

#[test]
fn certificates_are_replaced_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let source = format!(
        "listen = '127.0.0.1:0'\ncertificate = '{}'\nprivate_key = '{}'\naccess_keys = '{KEY}'\n",
        path("cert.pem"),
        path("key.pem"),
    );
    let first = certify(directory.path());
    let endpoint = Endpoint::start(&config(directory.path(), true, &source));
    let address = endpoint.address;
    let request = |id: &str| Post::new(body(id, &[LINE.as_bytes()]));
    assert_eq!(send(address, &first, &request("1")).unwrap().status, 200);
    // Plain HTTP is not understood, and harms nobody.
    assert!(exchange(connect(address).unwrap(), &request("plain").bytes()).is_err());
    let second = certify(directory.path());
    wait_for("the second certificate", || {
        send(address, &second, &request("2")).is_ok_and(|answer| answer.status == 200)
    });
    assert!(send(address, &first, &request("3")).is_err(), "the first is no longer shown");
    std::fs::write(directory.path().join("cert.pem"), "not PEM").unwrap();
    wait_for("a word on it", || endpoint.log().contains("the one before stays in force"));
    assert_eq!(send(address, &second, &request("4")).unwrap().status, 200);
    assert_eq!(endpoint.stop()["records"]["ok"], 3);
}
