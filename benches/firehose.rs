//! The Firehose endpoint alone: clients over TLS on loopback, the spool on the disk, and nobody behind who does anything
//! with the records. Clients and endpoint share the cores.
//!
//! `FLOWGAUGE_BENCH_MEGABYTES` (4000) of plain records are sent by `FLOWGAUGE_BENCH_CLIENTS` (2) connections.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints, and fails loudly")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flowgauge::clock::{Clock, SystemClock};
use flowgauge::framing::{ChunkEvent, Payload};
use flowgauge::generate::{GenerateSettings, Generator};
use flowgauge::record::FormatChoice;
use flowgauge::source::firehose::{FirehoseSettings, FirehoseSource};
use flowgauge::source::{InputIds, Settled, Source, StopFlag};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const ID_DIGITS: usize = 16;

/// What one request holds.
#[derive(Clone)]
struct Batch {
    name: &'static str,
    body: Vec<u8>,
    records: u64,
    record_bytes: u64,
}

impl Batch {
    fn new(name: &'static str, records: &[Vec<u8>]) -> Self {
        let mut body = format!(
            r#"{{"requestId":"{}","timestamp":1767225660000,"records":["#,
            "0".repeat(ID_DIGITS)
        )
        .into_bytes();
        for (number, record) in records.iter().enumerate() {
            body.extend_from_slice(if number > 0 { b",{\"data\":\"" } else { b"{\"data\":\"" });
            body.extend_from_slice(base64_simd::STANDARD.encode_to_string(record).as_bytes());
            body.extend_from_slice(b"\"}");
        }
        body.extend_from_slice(b"]}");
        let record_bytes = records.iter().map(|record| record.len() as u64).sum();
        Self { name, body, records: records.len() as u64, record_bytes }
    }

    /// Gives it another id.
    fn number(&mut self, number: u64) {
        let start = br#"{"requestId":""#.len();
        let text = format!("{number:0ID_DIGITS$}");
        self.body[start..start + ID_DIGITS].copy_from_slice(text.as_bytes());
    }
}

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn batches() -> [Batch; 2] {
    let mut generator = Generator::new(&GenerateSettings::default());
    let mut text = Vec::new();
    generator.fill(&mut text, 40_000);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let direct: Vec<Vec<u8>> = lines[..10_000]
        .iter()
        .map(|line| [b"{\"message\":\"", line.trim_ascii_end(), b"\"}"].concat())
        .collect();
    let groups: Vec<Vec<u8>> = lines.chunks(500).map(<[&[u8]]>::concat).collect();
    [
        Batch::new("10,000 records of one line", &direct),
        Batch::new("80 records of 500 lines", &groups),
    ]
}

fn certify(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["endpoint.test".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("endpoint.test").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(address).unwrap())
}

/// The status of the answer.
fn post(stream: &mut (impl Read + Write), body: &[u8]) -> u16 {
    let head = format!(
        "POST /firehose HTTP/1.1\r\nHost: x\r\nX-Amz-Firehose-Access-Key: k\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        answer.extend_from_slice(&buffer[..count]);
        if answer.ends_with(b"}") {
            return std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        }
    }
}

/// Sends a client's share; how often it was told to come again.
fn send_all(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    mut batch: Batch,
    numbers: std::ops::Range<u64>,
) -> u64 {
    let mut stream = connect(address, trusted);
    let mut repeats = 0;
    for number in numbers {
        batch.number(number);
        while post(&mut stream, &batch.body) != 200 {
            repeats += 1;
            thread::yield_now();
        }
    }
    repeats
}

fn run(batch: &Batch, requests: u64, clients: u64) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let trusted = certify(directory.path());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = |name: &str| directory.path().join(name);
    let settings: FirehoseSettings = toml::from_str(&format!(
        "listen = '{address}'\ncertificate = '{}'\nprivate_key = '{}'\naccess_keys = 'k'",
        path("cert.pem").display(),
        path("key.pem").display()
    ))
    .unwrap();
    let clock = Arc::new(SystemClock::new());
    let source = FirehoseSource::new(
        "bench".to_owned(),
        settings,
        FormatChoice::Auto,
        Arc::new(InputIds::default()),
        Arc::clone(&clock) as Arc<dyn Clock>,
    );
    let mut source = Box::new(source.with_spool(path("spool")));
    let settled = Arc::new(Settled::default());
    source.settled_by(Arc::clone(&settled));
    let (stop, emitted) = (StopFlag::default(), AtomicU64::new(0));
    let repeats = AtomicU64::new(0);
    let took = thread::scope(|scope| {
        let (stop, emitted) = (&stop, &emitted);
        let reader = scope.spawn(move || {
            source.run(stop, &mut |chunk| {
                if let ChunkEvent::Data(data) = &chunk.event
                    && let Payload::Records(records) = &data.payload
                {
                    emitted.fetch_add(records.len() as u64, Ordering::Relaxed);
                }
                // As if it were in a snapshot.
                settled.publish([(chunk.input, chunk.sequence + 1)]);
                ControlFlow::Continue(())
            })
        });
        while TcpStream::connect(address).is_err() {
            thread::yield_now();
        }
        let began = clock.monotonic();
        let share = requests / clients;
        let senders: Vec<_> = (0..clients)
            .map(|client| {
                let (batch, trusted) = (batch.clone(), &trusted);
                let numbers = client * share..(client + 1) * share;
                scope.spawn(move || send_all(address, trusted, batch, numbers))
            })
            .collect();
        for sender in senders {
            repeats.fetch_add(sender.join().unwrap(), Ordering::Relaxed);
        }
        let took = clock.monotonic().saturating_sub(began);
        stop.request();
        reader.join().unwrap().unwrap();
        took
    });
    let sent = requests / clients * clients;
    assert_eq!(emitted.load(Ordering::Relaxed), sent * batch.records, "each record came once");
    let megabytes = (sent * batch.record_bytes) as f64 / 1e6;
    println!(
        "{:<28} {:>5.0} MB/s of records, {:>5.0} requests/s, {clients} clients, {} told to come again",
        batch.name,
        megabytes / took.as_secs_f64(),
        sent as f64 / took.as_secs_f64(),
        repeats.load(Ordering::Relaxed),
    );
}

fn main() {
    let megabytes = asked("FLOWGAUGE_BENCH_MEGABYTES", 4_000);
    let clients = asked("FLOWGAUGE_BENCH_CLIENTS", 2);
    for batch in batches() {
        run(&batch, (megabytes * 1_000_000 / batch.record_bytes).max(clients), clients);
    }
}
