//! Amazon Data Firehose to the HTTPS endpoint, by the one emulator that delivers.

use std::net::{SocketAddr, TcpStream};

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::{RECORDS, generated};
use crate::http::call;
use crate::job::{self, Job, figures};
use crate::program::summary;
use crate::servers::{DEADLINE, Emulator, free_port, wait_for};

const DELIVERY_STREAM: &str = "flow-logs";
/// Records of one call, which become one delivery.
const RECORDS_PER_DELIVERY: usize = 200;

/// A delivery stream of the emulator, which delivers at once what is put into it.
struct DeliveryStream<'a>(&'a Emulator);

impl DeliveryStream<'_> {
    fn create<'a>(moto: &'a Emulator, url: &str) -> DeliveryStream<'a> {
        let stream = DeliveryStream(moto);
        let role = "arn:aws:iam::123456789012:role/delivery";
        stream.call(
            "CreateDeliveryStream",
            &json!({
                "DeliveryStreamName": DELIVERY_STREAM,
                "HttpEndpointDestinationConfiguration": {
                    "EndpointConfiguration": {"Url": url},
                    "S3Configuration": {"RoleARN": role, "BucketARN": "arn:aws:s3:::failed"},
                },
            }),
        );
        stream
    }

    fn put(&self, lines: &[&str]) {
        for lines in lines.chunks(RECORDS_PER_DELIVERY) {
            let record = |line: &&str| {
                let data = json!({"message": line}).to_string();
                json!({"Data": STANDARD.encode_to_string(data)})
            };
            let records: Vec<Value> = lines.iter().map(record).collect();
            let body = json!({"DeliveryStreamName": DELIVERY_STREAM, "Records": records});
            let answer = self.call("PutRecordBatch", &body);
            assert_eq!(answer["FailedPutCount"], 0);
        }
    }

    fn call(&self, operation: &str, body: &Value) -> Value {
        let target = format!("Firehose_20150804.{operation}");
        // The emulator looks for the service in it, and checks nothing.
        let authorization = "AWS4-HMAC-SHA256 \
            Credential=test/20260101/us-east-1/firehose/aws4_request, SignedHeaders=host, Signature=0";
        let fields = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &*target),
            ("authorization", authorization),
        ];
        let body = body.to_string();
        let (status, answer) =
            call(self.0.address(), "POST /", &fields, body.as_bytes(), DEADLINE).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }
}

#[test]
fn a_delivery_stream_delivers_to_the_endpoint_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let file = generated(directory.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("version")).collect();

    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let source = format!(
        "[sources.deliveries]\ntype = 'firehose_http'\nlisten = '{listen}'\n\
         certificate = '{}'\nprivate_key = '{}'\nallow_anonymous = true",
        certificate.display(),
        key.display(),
    );
    let config = job::config(directory.path(), &source);
    let start = || {
        let job = Job::start(&config);
        wait_for("an endpoint", || TcpStream::connect(listen).ok());
        job
    };

    let moto = Emulator::moto(Some(&certificate));
    let stream = DeliveryStream::create(&moto, &format!("https://{listen}/firehose"));
    let (first, rest) = lines.split_at(RECORDS * 2 / 3);
    let mut job = start();
    stream.put(first);
    job.read_until(RECORDS as u64 / 3);
    assert!(job.total("deliveries", "requests") > 0);
    job.kill();
    let mut job = start();
    stream.put(rest);
    job.read_until(RECORDS as u64);
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&[&file])));
    assert_eq!(counted["records"]["total"], RECORDS as u64);
}
