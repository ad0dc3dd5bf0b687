//! Real servers that speak as AWS does, started from `.testenv` on free loopback ports.
//!
//! Tests whose streams, queues and buckets have names of their own share one server of a kind; it lasts
//! as long as the test process. Whatever ends that process, a panic or a kill, ends its servers:
//! each has a keeper that waits at a pipe from here.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::config::Credentials;
use flowgauge::aws::AwsAccess;
use flowgauge::clock::{Clock, SystemClock};

/// How long anything may take before a test gives up. A consumer that is in use is waited for up to 20 s at a time.
pub(crate) const DEADLINE: Duration = Duration::from_mins(3);
/// Time between two looks at a condition that nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    while clock.monotonic() < DEADLINE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    panic!("{what} did not happen within {DEADLINE:?}");
}

/// Ends a server when its standard input ends, and itself when the server does. Processes are named by
/// job, so that none but its own can be meant.
const KEEPER: &str = r#"
trap 'trap - CHLD; kill -KILL %1 %2; wait; exit' CHLD
exec 3<&0
"$@" </dev/null 3<&- &
cat <&3 >/dev/null &
wait
"#;

/// A server process; ended when dropped, and with the test process.
pub(crate) struct Emulator {
    keeper: Child,
    port: u16,
    pub(crate) endpoint: String,
    _log: tempfile::TempDir,
}

impl Emulator {
    /// ministack: fast, without resharding.
    pub(crate) fn ministack() -> Self {
        Self::start("ministack", |keeper, port| {
            keeper
                .arg(test_environment("python/bin/ministack"))
                .env("GATEWAY_PORT", port.to_string())
                .env("BIND_HOST", "127.0.0.1");
        })
    }

    /// The ministack that all tests share.
    pub(crate) fn shared_ministack() -> &'static Self {
        static SHARED: LazyLock<Emulator> = LazyLock::new(Emulator::ministack);
        &SHARED
    }

    /// kinesis-local: slow, with resharding as the service does it.
    pub(crate) fn kinesis_local() -> Self {
        Self::start("kinesis-local", |keeper, port| {
            let package = test_environment("node/node_modules/kinesis-local");
            keeper
                .arg("node")
                .arg(package.join("main.js"))
                .env("KINESIS_MOCK_CERT_PATH", package.join("server.json"))
                .env("KINESIS_MOCK_PLAIN_PORT", port.to_string())
                .env("KINESIS_MOCK_TLS_PORT", free_port().to_string())
                .env("CREATE_STREAM_DURATION", "50ms")
                .env("SPLIT_SHARD_DURATION", "50ms")
                .env("MERGE_SHARDS_DURATION", "50ms")
                .env("REGISTER_STREAM_CONSUMER_DURATION", "50ms")
                .env("SHARD_LIMIT", "1000")
                .env("LOG_LEVEL", "WARN");
        })
    }

    /// The kinesis-local that all tests share.
    pub(crate) fn shared_kinesis_local() -> &'static Self {
        static SHARED: LazyLock<Emulator> = LazyLock::new(Emulator::kinesis_local);
        &SHARED
    }

    /// moto: its CloudWatch Logs and Firehose deliver. `certificates` is a PEM file of those whom it
    /// trusts when it delivers over HTTPS.
    pub(crate) fn moto(certificates: Option<&Path>) -> Self {
        Self::start("moto", |keeper, port| {
            keeper
                .arg(test_environment("python/bin/moto_server"))
                .args(["--host", "127.0.0.1", "--port"])
                .arg(port.to_string());
            if let Some(certificates) = certificates {
                keeper.env("REQUESTS_CA_BUNDLE", certificates);
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts a keeper; `describe` adds the server's command and environment to it.
    fn start(name: &str, describe: impl Fn(&mut Command, u16)) -> Self {
        let log = tempfile::tempdir().unwrap();
        let port = free_port();
        let output = File::create(log.path().join("log")).unwrap();
        let mut keeper = Command::new("bash");
        keeper.args(["-c", KEEPER, "keeper"]);
        describe(&mut keeper, port);
        let mut keeper = keeper
            .current_dir(log.path())
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for(&format!("a connection to {name}"), || {
            if keeper.try_wait().unwrap().is_some() {
                let said = std::fs::read_to_string(log.path().join("log")).unwrap();
                panic!("{name} ended: {said}");
            }
            TcpStream::connect(address).ok()
        });
        Self { keeper, port, endpoint: format!("http://{address}"), _log: log }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// A port on which nothing listens at this moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn test_environment(part: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".testenv").join(part);
    assert!(path.exists(), "{} is missing; run scripts/setup", path.display());
    path
}

/// Access to a server on loopback, which takes any credentials.
pub(crate) fn access(endpoint: &str) -> AwsAccess {
    AwsAccess {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        profile: None,
        credentials: Some(Credentials::new("test", "test", None, None, "test")),
    }
}

/// What the program needs in its environment to talk to such a server.
pub(crate) const CREDENTIALS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// The SDK, for tests that speak to a server themselves: a runtime on the test's own thread.
pub(crate) struct Sdk {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) config: SdkConfig,
}

impl Sdk {
    /// The SDK for a server.
    pub(crate) fn new(endpoint: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = runtime.block_on(access(endpoint).load()).unwrap();
        Self { runtime, config }
    }
}
