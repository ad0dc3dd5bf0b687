//! The certificate that connections are shown, read again when its files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::settings::TlsFiles;
use crate::causes::with_causes;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("cannot read `{}`; let `{key}` name the file, and let the user that runs flowgauge read it", path.display())]
    Io { path: PathBuf, key: &'static str, source: io::Error },
    #[error("`{}` is not PEM with {what}; let `{key}` name such a file", path.display())]
    Pem { path: PathBuf, key: &'static str, what: &'static str, source: pem::Error },
    #[error("`{}` holds no certificate; let `certificate` name a PEM file with the server's and those that signed it", path.display())]
    Empty { path: PathBuf },
    #[error("`{}` and `{}` do not make a TLS server; name a certificate and the key it was made for", certificate.display(), private_key.display())]
    Pair { certificate: PathBuf, private_key: PathBuf, source: rustls::Error },
}

const CERTIFICATE: &str = "certificate";
const PRIVATE_KEY: &str = "private_key";

/// Why no TLS server can be made of these files, with the key of the settings to mend; `None` if one can.
#[must_use]
pub fn tls_fault(files: &TlsFiles) -> Option<(&'static str, String)> {
    let error = read(files, &aws_lc_rs::default_provider()).err()?;
    let key = match &error {
        CertificateError::Io { key, .. } | CertificateError::Pem { key, .. } => key,
        CertificateError::Empty { .. } => CERTIFICATE,
        CertificateError::Pair { .. } => PRIVATE_KEY,
    };
    Some((key, with_causes(&error)))
}

/// What tells a file from the one that was there before.
type Stamp = (u64, u64, i64, i64);

/// The certificate of now.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Arc<CertifiedKey>, [Stamp; 2])>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// If they hold no certificate with its key.
    pub(super) fn load(files: TlsFiles) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let stamps = stamps(&files)?;
        let key = read(&files, &provider)?;
        let current = RwLock::new((Arc::new(key), stamps));
        Ok(Arc::new(Self { files, provider, current }))
    }

    /// How connections are secured.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the files again if they are others than before; true if they are in force from now on. Connections that are
    /// open keep theirs.
    ///
    /// # Errors
    /// If they hold no certificate with its key, as while only one of them is replaced: the one before stays.
    pub(super) fn reload(&self) -> Result<bool, CertificateError> {
        let stamps = stamps(&self.files)?;
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
        if stamps == known {
            return Ok(false);
        }
        let key = read(&self.files, &self.provider)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(key), stamps);
        Ok(true)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

fn stamps(files: &TlsFiles) -> Result<[Stamp; 2], CertificateError> {
    let stamp = |path: &Path, key| match fs::metadata(path) {
        Ok(data) => Ok((data.ino(), data.size(), data.mtime(), data.mtime_nsec())),
        Err(source) => Err(CertificateError::Io { path: path.to_owned(), key, source }),
    };
    Ok([stamp(&files.certificate, CERTIFICATE)?, stamp(&files.private_key, PRIVATE_KEY)?])
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let TlsFiles { certificate, private_key } = files;
    let bytes = |path: &PathBuf, key| {
        fs::read(path).map_err(|source| CertificateError::Io { path: path.clone(), key, source })
    };
    let pem = |path: &PathBuf, key, what| {
        let path = path.clone();
        move |source| CertificateError::Pem { path, key, what, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&bytes(certificate, CERTIFICATE)?)
            .collect::<Result<_, _>>()
            .map_err(pem(certificate, CERTIFICATE, "certificates"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: certificate.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes(private_key, PRIVATE_KEY)?).map_err(pem(
        private_key,
        PRIVATE_KEY,
        "a private key",
    ))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| CertificateError::Pair {
        certificate: certificate.clone(),
        private_key: private_key.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;

    fn write(files: &TlsFiles) {
        let Generated { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, cert.pem()).unwrap();
        fs::write(&files.private_key, signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn faults_name_the_setting_to_mend_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, private_key] = ["c.pem", "k.pem"].map(|name| folder.path().join(name));
        let files = TlsFiles { certificate, private_key };
        let root = folder.path().to_str().unwrap();
        let check = |expected_key: &str, expected: &str| {
            let (key, message) = tls_fault(&files).unwrap();
            assert_eq!((key, message.replace(root, "").as_str()), (expected_key, expected));
        };
        check(
            "certificate",
            "cannot read `/c.pem`; let `certificate` name the file, and let the user that runs flowgauge read it: No such file or directory (os error 2)",
        );
        write(&files);
        assert_eq!(tls_fault(&files), None);
        let key = fs::read(&files.private_key).unwrap();
        fs::remove_file(&files.private_key).unwrap();
        check(
            "private_key",
            "cannot read `/k.pem`; let `private_key` name the file, and let the user that runs flowgauge read it: No such file or directory (os error 2)",
        );
        fs::write(&files.private_key, "no PEM").unwrap();
        check(
            "private_key",
            "`/k.pem` is not PEM with a private key; let `private_key` name such a file: no items found",
        );
        write(&files);
        fs::write(&files.private_key, key).unwrap();
        assert_eq!(tls_fault(&files).unwrap().0, "private_key", "it belongs to another");
        fs::write(&files.certificate, "no PEM").unwrap();
        check(
            "certificate",
            "`/c.pem` holds no certificate; let `certificate` name a PEM file with the server's and those that signed it",
        );
    }

    #[test]
    fn changed_files_are_taken_when_they_fit_together() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, private_key] = ["c.pem", "k.pem"].map(|name| folder.path().join(name));
        let files = TlsFiles { certificate, private_key };
        assert!(matches!(Certificates::load(files.clone()), Err(CertificateError::Io { .. })));
        write(&files);
        let certificates = Certificates::load(files.clone()).unwrap();
        let shown = || certificates.current.read().unwrap().0.cert[0].clone();
        let first = shown();
        assert!(!certificates.reload().unwrap());
        let key = fs::read(&files.private_key).unwrap();
        write(&files);
        let new_key = fs::read(&files.private_key).unwrap();
        fs::write(&files.private_key, key).unwrap();
        assert!(matches!(certificates.reload(), Err(CertificateError::Pair { .. })));
        assert_eq!(shown(), first, "the one before stays");
        fs::write(&files.private_key, new_key).unwrap();
        assert!(certificates.reload().unwrap());
        assert_ne!(shown(), first);
        fs::write(&files.certificate, "no PEM").unwrap();
        assert!(matches!(certificates.reload(), Err(CertificateError::Empty { .. })));
    }
}
