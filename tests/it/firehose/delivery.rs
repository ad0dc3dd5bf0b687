//! Deliveries that are right: every form of record, and the answer to the letter.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::client::{LINE, Post, body, connect, exchange, send};
use super::endpoint::{Endpoint, NEXT_KEY, config, plain};

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn envelope(message_type: &str) -> Vec<u8> {
    let document = json!({
        "messageType": message_type,
        "owner": "123456789012",
        "logGroup": "flow",
        "logStream": "eni-0a1b2c3d-all",
        "subscriptionFilters": ["all"],
        "logEvents": [{"id": "1", "timestamp": 1_767_225_660_000_u64, "message": LINE}],
    });
    gzip(document.to_string().as_bytes())
}

fn endpoint(directory: &std::path::Path) -> Endpoint {
    let address = "127.0.0.1:0".parse().unwrap();
    Endpoint::start(&config(directory, true, &plain(address)))
}

#[test]
fn the_answer_has_these_members_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path());
    let check = |post: Post| {
        let answer = send(endpoint.address, &post);
        assert_eq!(answer.status, 200, "{answer:?}");
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(!head.contains("content-encoding") && !head.contains("transfer-encoding"));
        let json = answer.json();
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
        json
    };
    let arn = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/flow-logs";
    let json = check(
        Post::new(body("9f3f6b3a-1", &[LINE.as_bytes()]))
            .with("X-Amz-Firehose-Request-Id", "9f3f6b3a-1")
            .with("x-amz-firehose-protocol-version", "1.0")
            .with("X-AMZ-FIREHOSE-SOURCE-ARN", arn)
            .with("X-Amz-Firehose-Common-Attributes", r#"{"commonAttributes":{"env":"prod"}}"#),
    );
    assert_eq!(json["requestId"], "9f3f6b3a-1");
    assert!(json["timestamp"].as_i64().unwrap() > 1_767_225_600_000, "{json}");
    // As moto delivers: without headers of its own.
    check(Post::new(body("9f3f6b3a-2", &[LINE.as_bytes()])).with("Content-Type", ""));
    check(
        Post::new(gzip(body("9f3f6b3a-3", &[LINE.as_bytes()]).as_bytes()))
            .with("Content-Encoding", "gzip")
            .with("X-Amz-Firehose-Access-Key", NEXT_KEY),
    );
    let log = endpoint.log();
    assert!(log.contains(arn) && log.contains("prod"), "{log}");
    assert!(!log.contains(NEXT_KEY));
    assert_eq!(endpoint.stop()["records"]["ok"], 3);
}

#[test]
fn every_form_of_record_is_read_and_bad_ones_are_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path());
    let direct = format!(r#"{{"message":"{LINE}"}}"#);
    let both = format!("{LINE}\n{LINE}\n");
    let records: [&[u8]; 6] = [
        direct.as_bytes(),
        both.as_bytes(),
        &envelope("DATA_MESSAGE"),
        &envelope("CONTROL_MESSAGE"),
        b"",
        LINE.as_bytes(),
    ];
    let good = send(endpoint.address, &Post::new(body("good", &records)));
    assert_eq!(good.status, 200, "{good:?}");
    // One request of which only the last record is good.
    let bad = [r#"{"data":"MiAx!"}"#, r#"{"data":"MiAxM"}"#, r#"{"data":5}"#, r#"{"dat":""}"#, "7"];
    let last = base64_simd::STANDARD.encode_to_string(LINE);
    let mixed =
        format!(r#"{{"requestId":"mixed","records":[{},{{"data":"{last}"}}]}}"#, bad.join(","));
    assert_eq!(send(endpoint.address, &Post::new(mixed)).status, 200);
    let summary = endpoint.stop();
    let records = &summary["records"];
    let counts = ["ok", "malformed", "control"].map(|name| records[name].as_u64().unwrap());
    assert_eq!(counts, [6, bad.len() as u64, 1], "{summary}");
    let samples: Vec<&Value> = summary["malformed_samples"].as_array().unwrap().iter().collect();
    assert!(samples.iter().all(|sample| sample.to_string().contains("edge/firehose:mixed")));
}

#[test]
fn a_connection_takes_one_request_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path());
    let mut stream = connect(endpoint.address).unwrap();
    for number in 0..20 {
        let request = Post::new(body(&format!("id-{number}"), &[LINE.as_bytes(); 3]));
        assert_eq!(exchange(&mut stream, &request.bytes()).unwrap().status, 200);
        let refused = request.with("X-Amz-Firehose-Access-Key", "wrong");
        assert_eq!(exchange(&mut stream, &refused.bytes()).unwrap().status, 401);
    }
    let health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&mut stream, health).unwrap().status, 200);
    assert_eq!(endpoint.stop()["records"]["ok"], 60);
}
