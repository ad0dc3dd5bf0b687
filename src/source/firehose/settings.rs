//! What `[sources.NAME]` of type `firehose_http` may say, checked while it is read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::secret::Secret;
use crate::units::checked::{checked, number_in, size_from};

const LISTEN_DEFAULT: &str = "0.0.0.0:8443";
const PATH_DEFAULT: &str = "/firehose";
const CONNECTIONS_DEFAULT: u32 = 4_096;
const CONNECTIONS_LIMIT: u32 = 100_000;
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// The largest request with its records beside it.
const MEMORY_BYTES_MIN: u64 = 160 << 20;
const SPOOL_BYTES_DEFAULT: u64 = 8 << 30;
const SPOOL_BYTES_MIN: u64 = 256 << 20;
/// Firehose sends no longer ones.
const KEY_BYTES_MAX: usize = 4_096;
/// The name of a key that stands alone.
const ONLY_KEY: &str = "only";

/// Where Firehose delivers to, and who may.
///
/// ```toml
/// listen = "0.0.0.0:8443"
/// path = "/firehose"
/// certificate = "/etc/flowgauge/tls/fullchain.pem"
/// private_key = "/etc/flowgauge/tls/privkey.pem"
/// access_keys = { current = { env = "FIREHOSE_KEY" }, next = { env = "FIREHOSE_KEY_NEXT" } }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct FirehoseSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// The path of the URL that Firehose is given.
    pub path: String,
    /// PEM files of the certificate chain and its key; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The keys of which a request must have one, by names that only this file knows.
    pub access_keys: BTreeMap<String, Secret>,
    /// Whether requests without a key are taken.
    pub allow_anonymous: bool,
    /// Connections at one time; further ones are closed at once.
    pub connections_max: u32,
    /// Bytes of requests in memory; beyond it they are refused with 503.
    pub memory_bytes_max: u64,
    /// Bytes of the spool on disk; beyond it requests are refused with 503.
    pub spool_bytes_max: u64,
    /// Whether what is delivered is only looked at: it goes on and is not acknowledged, so that it comes again.
    pub is_look: bool,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: Option<ListenWritten>,
    path: Option<PathWritten>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    #[serde(default)]
    allow_plaintext: bool,
    access_keys: Option<KeysWritten>,
    #[serde(default)]
    allow_anonymous: bool,
    connections_max: Option<ConnectionsWritten>,
    memory_max: Option<MemoryWritten>,
    spool_max: Option<SpoolWritten>,
}

impl TryFrom<Written> for FirehoseSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let listen = match written.listen {
            Some(ListenWritten(listen)) => listen,
            None => LISTEN_DEFAULT.parse().expect("the default is an address"),
        };
        let tls = match (written.certificate, written.private_key) {
            (Some(certificate), Some(private_key)) => Some(TlsFiles { certificate, private_key }),
            (None, None) if listen.ip().is_loopback() || written.allow_plaintext => None,
            (None, None) => {
                return Err(
                    "it has no `certificate` and no `private_key`; add both, or `allow_plaintext = true` if TLS ends at a load balancer before it"
                        .to_owned(),
                );
            }
            (Some(_), None) => {
                return Err("`certificate` is set without `private_key`; add it".to_owned());
            }
            (None, Some(_)) => {
                return Err("`private_key` is set without `certificate`; add it".to_owned());
            }
        };
        let has_keys = written.access_keys.is_some();
        let access_keys = written.access_keys.map(|keys| keys.0).unwrap_or_default();
        if access_keys.is_empty() && has_keys {
            return Err("`access_keys` is empty; add a key to it".to_owned());
        }
        if access_keys.is_empty() && !written.allow_anonymous {
            return Err(
                "it has no `access_keys`; add one such as `access_keys = { current = { env = \"FIREHOSE_KEY\" } }`, or `allow_anonymous = true`"
                    .to_owned(),
            );
        }
        Ok(Self {
            listen,
            path: written.path.map_or_else(|| PATH_DEFAULT.to_owned(), |path| path.0),
            tls,
            access_keys,
            allow_anonymous: written.allow_anonymous,
            connections_max: written.connections_max.map_or(CONNECTIONS_DEFAULT, |max| max.0),
            memory_bytes_max: written.memory_max.map_or(MEMORY_BYTES_DEFAULT, |max| max.0),
            spool_bytes_max: written.spool_max.map_or(SPOOL_BYTES_DEFAULT, |max| max.0),
            is_look: false,
        })
    }
}

checked!(
    ListenWritten(SocketAddr),
    |text: String| text.parse().ok(),
    "it must be an address with a port, like `0.0.0.0:8443`"
);

checked!(
    PathWritten(String),
    |text: String| {
        let is_part = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        (text.starts_with('/') && text.bytes().all(is_part)).then_some(text)
    },
    "it must be the path of a URL, like `/firehose`"
);

#[derive(Deserialize)]
#[serde(try_from = "OneOrMore")]
struct KeysWritten(BTreeMap<String, Secret>);

/// A secret, or secrets by name.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a secret, or a table of secrets by name")]
enum OneOrMore {
    One(Secret),
    More(BTreeMap<String, Secret>),
}

impl TryFrom<OneOrMore> for KeysWritten {
    type Error = &'static str;

    fn try_from(written: OneOrMore) -> Result<Self, Self::Error> {
        let keys = match written {
            OneOrMore::One(key) => BTreeMap::from([(ONLY_KEY.to_owned(), key)]),
            OneOrMore::More(keys) => keys,
        };
        let has_length = |key: &Secret| (1..=KEY_BYTES_MAX).contains(&key.expose().len());
        keys.values()
            .all(has_length)
            .then_some(Self(keys))
            .ok_or("every key must have 1 to 4096 bytes")
    }
}

checked!(
    ConnectionsWritten(u32),
    |count: u32| number_in(count, &(1..=CONNECTIONS_LIMIT)),
    "it must be 1 to 100000"
);

checked!(
    MemoryWritten(u64),
    |text: String| size_from(&text, MEMORY_BYTES_MIN),
    "it must be at least `160MiB`"
);

checked!(
    SpoolWritten(u64),
    |text: String| size_from(&text, SPOOL_BYTES_MIN),
    "it must be at least `256MiB`"
);

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: &str = "certificate = 'c.pem'\nprivate_key = 'k.pem'\n";
    const KEY: &str = "access_keys = 'hunter2'\n";

    fn settings(text: &str) -> Result<FirehoseSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_least_is_a_certificate_and_a_key() {
        let read = settings(&format!("{TLS}{KEY}")).unwrap();
        assert_eq!((read.listen.port(), read.path.as_str()), (8443, "/firehose"));
        assert_eq!(read.tls.unwrap().private_key, PathBuf::from("k.pem"));
        assert_eq!(read.access_keys["only"], Secret::new("hunter2".to_owned()));
        assert_eq!((read.connections_max, read.memory_bytes_max), (4096, 256 << 20));
    }

    #[test]
    fn keys_have_names_for_rotation() {
        let text = format!("{TLS}access_keys = {{ current = 'a', next = 'b' }}");
        let names: Vec<String> = settings(&text).unwrap().access_keys.into_keys().collect();
        assert_eq!(names, ["current", "next"]);
    }

    #[test]
    fn plain_http_is_for_this_machine_alone_unless_allowed() {
        let is_plain = |text: &str| settings(&format!("{text}\n{KEY}")).unwrap().tls.is_none();
        assert!(is_plain("listen = '127.0.0.1:0'") && is_plain("listen = '[::1]:80'"));
        assert!(is_plain("allow_plaintext = true"));
    }

    #[test]
    fn faults_say_what_to_write() {
        let check = |text: &str, part: &str| {
            let message = settings(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        };
        check(KEY, "add both, or `allow_plaintext = true`");
        check(TLS, "it has no `access_keys`");
        check(&format!("certificate = 'c'\n{KEY}"), "set without `private_key`");
        check(&format!("private_key = 'c'\n{KEY}"), "set without `certificate`");
        check("listen = 'localhost'", "an address with a port");
        check("path = 'firehose'", "the path of a URL");
        check("access_keys = 5", "a secret, or a table of secrets by name");
        check(&format!("{TLS}access_keys = {{}}"), "`access_keys` is empty");
        check("access_keys = ''", "1 to 4096 bytes");
        check("access_keys = { a = '' }", "1 to 4096 bytes");
        check("memory_max = '1MiB'", "at least `160MiB`");
        check("spool_max = '1MiB'", "at least `256MiB`");
        check("connections_max = 0", "1 to 100000");
        check("port = 1", "unknown field `port`");
    }
}
