//! A look at an endpoint: what is delivered is seen, and comes again.

use std::process::Stdio;

use serde_json::Value;

use super::client::{LINE, Post, body, connect, exchange};
use super::endpoint::{config, free_address, plain, wait_for};
use crate::program::flowgauge;

#[test]
fn a_look_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = config(directory.path(), true, &plain(address));
    let child = flowgauge()
        .args(["doctor", "--time", "3s", "--output", "json", "-c"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = None;
    wait_for("an answer", || {
        let post = Post::new(body("request-1", &[LINE.as_bytes()]));
        answer = connect(address).ok().and_then(|stream| exchange(stream, &post.bytes()).ok());
        answer.is_some()
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{answer:?}");
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    let source = &report["sources"][0];
    assert_eq!((&source["type"], &source["records"]["ok"]), (&"firehose_http".into(), &1.into()));
    assert!(!directory.path().join("state").exists(), "a look leaves nothing");
}
