//! Deliveries to the endpoint, made again until they are accepted: over faults on the way and kills of the
//! process, each counts once.
#![cfg(feature = "firehose")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::{over_seeds, seeds};
use crate::http::call;
use crate::job::{self, figures};
use crate::program::{run, summary};
use crate::proxy::{Dice, FaultKind, FaultPlan, FaultProxy};
use crate::servers::free_port;

const RECORDS: u64 = 2_000;
/// Records of one delivery.
const RECORDS_PER_DELIVERY: usize = 40;
/// Connections at one time.
const SENDERS: usize = 4;
/// Runs at one time: two cores can do no more.
const AT_A_TIME: usize = 4;
/// How long a sender waits for an answer; Firehose itself waits three minutes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a delivery is made again; Firehose's own begins at a second.
const PAUSE: Duration = Duration::from_millis(100);

/// A request and its id.
struct Delivery {
    id: String,
    body: Vec<u8>,
}

fn deliveries(seed: u64, lines: &[&str]) -> Vec<Delivery> {
    let chunks = lines.chunks(RECORDS_PER_DELIVERY).enumerate();
    let delivery = |(number, lines): (usize, &[&str])| {
        let id = format!("{seed:08x}-0000-4000-8000-{number:012x}");
        let data = |line: &&str| json!({"data": STANDARD.encode_to_string(format!("{line}\n"))});
        let records: Vec<Value> = lines.iter().map(data).collect();
        let body = json!({"requestId": id, "timestamp": 1_767_225_660_000_u64, "records": records});
        Delivery { id, body: body.to_string().into_bytes() }
    };
    chunks.map(delivery).collect()
}

/// Lets senders give up once nobody takes their deliveries any more.
struct Closed<'a>(&'a AtomicBool);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Delivers until it is accepted, as Firehose does.
fn deliver(endpoint: SocketAddr, delivery: &Delivery, is_closed: &AtomicBool) {
    let fields = [
        ("content-type", "application/json"),
        ("x-amz-firehose-protocol-version", "1.0"),
        ("x-amz-firehose-request-id", delivery.id.as_str()),
        ("x-amz-firehose-access-key", "key"),
    ];
    while !is_closed.load(Ordering::SeqCst) {
        match call(endpoint, "POST /firehose", &fields, &delivery.body, PATIENCE) {
            Ok((200, body)) => {
                let answer: Value = serde_json::from_slice(&body).expect("JSON");
                assert_eq!(answer["requestId"], delivery.id.as_str());
                return;
            }
            Ok((status, _)) => assert!(status >= 500, "{status}: only a fault on the way refuses"),
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

fn check(seed: u64, lines: &[&str], expected: &Value) -> BTreeMap<FaultKind, u64> {
    let directory = tempfile::tempdir().expect("a directory");
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let proxy = FaultProxy::start(listen, FaultPlan::everything(seed));
    let config = config(directory.path(), listen);
    let deliveries = deliveries(seed, lines);
    let (next, is_closed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let send = || {
        while let Some(delivery) = deliveries.get(next.fetch_add(1, Ordering::SeqCst)) {
            deliver(proxy.address, delivery, &is_closed);
        }
    };
    let counted = std::thread::scope(|scope| {
        let _closed = Closed(&is_closed);
        for _ in 0..SENDERS {
            std::thread::Builder::new().spawn_scoped(scope, send).expect("a thread");
        }
        job::count_over_kills(&config, &mut Dice::new(seed), RECORDS)
    });
    assert_eq!(figures(&counted), *expected, "seed {seed}");
    proxy.faults()
}

fn config(directory: &Path, listen: SocketAddr) -> PathBuf {
    let source = format!(
        "[sources.deliveries]\ntype = 'firehose_http'\nlisten = '{listen}'\n\
         access_keys = {{ current = 'key' }}",
    );
    job::config(directory, &source)
}

#[test]
fn deliveries_count_once_over_faults_and_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("flow.log");
    let (records, target) = (RECORDS.to_string(), file.to_str().expect("UTF-8"));
    let output = run(&["generate", "--records", &records, "--rate", "20", "-o", target]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&file).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let expected = figures(&summary(&[&file]));
    over_seeds("deliveries", &seeds(3), AT_A_TIME, &[], |seed| check(seed, &lines, &expected));
}
