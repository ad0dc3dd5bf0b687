//! Requests that can't be taken, each with its status; nothing of them counts, and what is right between them does.

use std::fmt::Write as _;

use super::client::{LINE, Post, body, connect, exchange, send};
use super::delivery::gzip;
use super::endpoint::{Endpoint, KEY, config, plain};

/// What is wrong with a request, the bytes of it, and the status that it gets.
type Case = (&'static str, Vec<u8>, u16);

fn good() -> Post {
    Post::new(body("good", &[LINE.as_bytes()]))
}

fn head_cases() -> Vec<Case> {
    let key = |key: &str| good().with("X-Amz-Firehose-Access-Key", key);
    let attributes = |text: &str| good().with("X-Amz-Firehose-Common-Attributes", text);
    let pairs = |count: usize, key_chars: usize, value_chars: usize| {
        let mut text = String::from("{\"commonAttributes\":{");
        for number in 0..count {
            let comma = if number > 0 { "," } else { "" };
            let value = "v".repeat(value_chars);
            write!(text, "{comma}\"{number:0>key_chars$}\":\"{value}\"").unwrap();
        }
        attributes(&(text + "}}"))
    };
    let method = |method| Post { method, ..good() };
    let at = |path| Post { path, ..good() };
    let cases: Vec<(&'static str, Post, u16)> = vec![
        ("no key", key(""), 401),
        ("a wrong key", key("wrong"), 401),
        ("the start of a key", key(&KEY[..5]), 401),
        ("a key and more", key(&format!("{KEY}x")), 401),
        ("a key in capitals", key(&KEY.to_ascii_uppercase()), 401),
        ("a key that is too long", key(&"k".repeat(5_000)), 401),
        ("another path", at("/other"), 404),
        ("no path", at("/"), 404),
        ("a path below", at("/firehose/x"), 404),
        ("GET", method("GET"), 405),
        ("PUT", method("PUT"), 405),
        ("DELETE", method("DELETE"), 405),
        ("OPTIONS", method("OPTIONS"), 405),
        ("a version to come", good().with("X-Amz-Firehose-Protocol-Version", "2.0"), 400),
        ("no ARN", good().with("X-Amz-Firehose-Source-Arn", "flow-logs"), 400),
        ("another id", good().with("X-Amz-Firehose-Request-Id", "bad"), 400),
        ("a long id", good().with("X-Amz-Firehose-Request-Id", &"i".repeat(600)), 400),
        ("attributes that are no JSON", attributes("{"), 400),
        ("attributes that are no texts", attributes(r#"{"commonAttributes":{"a":1}}"#), 400),
        ("attributes without their name", attributes(r#"{"a":"b"}"#), 400),
        ("too many attributes", pairs(51, 2, 1), 400),
        ("a long attribute key", pairs(1, 257, 1), 400),
        ("a long attribute value", pairs(1, 1, 1_025), 400),
        ("plain text", good().with("Content-Type", "text/plain"), 415),
        ("a form", good().with("Content-Type", "application/x-www-form-urlencoded"), 415),
        ("brotli", good().with("Content-Encoding", "br"), 415),
        ("zstd", good().with("Content-Encoding", "zstd"), 415),
        ("a length beyond the limit", good().with("Content-Length", "70000000"), 413),
        ("a length beyond belief", good().with("Content-Length", "107374182400"), 413),
        ("leave to send with a wrong key", key("x").with("Expect", "100-continue"), 401),
        ("a long header", good().with("X-Filler", &"f".repeat(500_000)), 431),
    ];
    cases.into_iter().map(|(what, post, status)| (what, post.bytes(), status)).collect()
}

fn body_cases() -> Vec<Case> {
    let text = |text: &str| Post::new(text);
    let packed = |bytes: Vec<u8>| Post::new(bytes).with("Content-Encoding", "gzip");
    let whole = gzip(body("bad", &[LINE.as_bytes()]).as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let zeros = vec![b' '; 80 << 20];
    let many = body("bad", &vec![&b"x"[..]; 10_001]);
    let records = |records: &str| text(&format!(r#"{{"requestId":"bad","records":{records}}}"#));
    let with = |more: &str| text(&format!(r#"{{{more},"records":[{{"data":"MiAx"}}]}}"#));
    let id = |id: &str| with(&format!("\"requestId\":{id}"));
    let mut not_utf8 = body("bad", &[b"x"]).into_bytes();
    not_utf8[15] = 0xff;
    let cases: Vec<(&'static str, Post, u16)> = vec![
        ("nothing", text(""), 400),
        ("blanks", text("   "), 400),
        ("a word", text("records"), 400),
        ("a line", text(LINE), 400),
        ("null", text("null"), 400),
        ("a list", text("[]"), 400),
        ("an empty object", text("{}"), 400),
        ("a body that breaks off", text(&body("bad", &[LINE.as_bytes()])[..60]), 400),
        ("a body without its last bracket", text(body("bad", &[b"x"]).trim_end_matches('}')), 400),
        ("something behind the body", text(&(body("bad", &[b"x"]) + "{}")), 400),
        ("no id", text(r#"{"records":[{"data":"MiAx"}]}"#), 400),
        ("a number for an id", id("5"), 400),
        ("null for an id", id("null"), 400),
        ("an empty id", id("\"\""), 400),
        ("an id with escapes", id("\"\\u0041\""), 400),
        ("an id beyond the limit", id(&format!("\"{}\"", "i".repeat(300))), 400),
        ("an id that is no UTF-8", Post::new(not_utf8), 400),
        ("two ids", with(r#""requestId":"a","requestId":"b""#), 400),
        ("a text for a timestamp", with(r#""requestId":"a","timestamp":"1767225660000""#), 400),
        ("a broken timestamp", with(r#""requestId":"a","timestamp":1767225660.5"#), 400),
        ("no records", text(r#"{"requestId":"bad"}"#), 400),
        ("an object for records", records("{}"), 400),
        ("a text for records", records("\"MiAx\""), 400),
        ("empty records", records("[]"), 400),
        ("a comma too many", records(r#"[{"data":"MiAx"},]"#), 400),
        ("records twice", with(r#""requestId":"a","records":[{"data":"MiAx"}]"#), 400),
        ("too many records", text(&many), 400),
        ("a hundred thousand brackets", records(&"[".repeat(100_000)), 400),
        ("what is not gzip", packed(body("bad", &[b"x"]).into_bytes()), 400),
        ("gzip that breaks off", packed(whole[..whole.len() - 9].to_vec()), 400),
        ("damaged gzip", packed(damaged), 400),
        ("a bomb", packed(gzip(&zeros)), 413),
        ("a bomb in parts", packed(gzip(&zeros[..9 << 20]).repeat(9)), 413),
    ];
    cases.into_iter().map(|(what, post, status)| (what, post.bytes(), status)).collect()
}

/// What is no HTTP, or HTTP that contradicts itself.
fn wire_cases() -> Vec<Case> {
    let raw = |text: &str| text.as_bytes().to_vec();
    let chunked = good().with("Transfer-Encoding", "chunked");
    let long_chunk = [format!("{:x}\r\n", 66 << 20).into_bytes(), vec![b' '; 66 << 20]].concat();
    vec![
        ("no HTTP", raw("hello\r\n\r\n"), 400),
        ("a broken header", raw("POST /firehose HTTP/1.1\r\nbad header\r\n\r\n"), 400),
        ("two lengths", good().with("Content-Length", "5\r\nContent-Length: 6").bytes(), 400),
        ("a length that is no number", good().with("Content-Length", "five").bytes(), 400),
        ("a broken chunk", Post { body: b"zz\r\n".to_vec(), ..chunked.clone() }.bytes(), 400),
        ("chunks beyond the limit", Post { body: long_chunk, ..chunked }.bytes(), 413),
    ]
}

#[test]
fn each_bad_request_has_its_status_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let source = plain("127.0.0.1:0".parse().unwrap()) + "memory_max = '256MiB'";
    let endpoint = Endpoint::start(&config(directory.path(), true, &source));
    let cases = [head_cases(), body_cases(), wire_cases()].concat();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut faults = Vec::new();
    for (number, (what, request, expected)) in cases.iter().enumerate() {
        match exchange(connect(endpoint.address).unwrap(), request) {
            Ok(answer) if answer.status != *expected => faults.push(format!("{what}: {answer:?}")),
            Ok(answer) if answer.body.is_empty() => {
                // The HTTP library's own answer.
                assert!(matches!(answer.status, 400 | 431), "{what}: {answer:?}");
            }
            Ok(answer) => {
                let json = answer.json();
                let members = json.as_object().unwrap();
                let message = members.get("errorMessage").and_then(|text| text.as_str());
                let is_said = message.is_some_and(|text| (1..=8192).contains(&text.len()));
                if !is_said || members.len() != 3 || !json["timestamp"].is_i64() {
                    faults.push(format!("{what}: {answer:?}"));
                }
                assert!(!answer.head.contains(KEY) && !json.to_string().contains(KEY));
            }
            // What it did not read of an endless head resets the connection, and with it the answer.
            Err(_) if *expected == 431 => {}
            Err(error) => faults.push(format!("{what}: {error}")),
        }
        let between = Post::new(body(&format!("between-{number}"), &[LINE.as_bytes()]));
        assert_eq!(send(endpoint.address, &between).status, 200, "after {what}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // A body that breaks off with its connection: nobody is there to be told.
    let cut = good().bytes();
    std::io::Write::write_all(&mut connect(endpoint.address).unwrap(), &cut[..cut.len() - 9])
        .unwrap();
    let peak = endpoint.memory_peak_bytes();
    assert!(peak < 640 << 20, "{peak} bytes");
    let log = endpoint.log();
    assert!(!log.contains(KEY), "{log}");
    let summary = endpoint.stop();
    assert_eq!(summary["records"]["ok"], cases.len(), "{summary}");
    assert_eq!(summary["records"]["malformed"], 0, "{summary}");
}
