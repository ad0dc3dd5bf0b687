//! `iam policy`: the least that a configuration needs, as IAM takes it.
#![cfg(all(feature = "kinesis", feature = "cloudwatch", feature = "s3"))]

use serde_json::Value;

use crate::golden;
use crate::program::run;

/// The policy of a configuration, held against the grammar of IAM and against its golden file.
fn check(name: &str, config: &str, arguments: &[&str], note: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("f.toml");
    std::fs::write(&path, config).expect("a file");
    let path = path.to_str().expect("UTF-8");
    let output = run(&[&["iam", "policy", "-c", path], arguments].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, note, "{name}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    if !text.is_empty() {
        check_grammar(&serde_json::from_str(&text).expect("JSON"));
    }
    golden::check(&format!("iam/{name}.json"), &text);
}

/// The elements of a policy document as IAM's grammar has them, as far as we write them.
fn check_grammar(policy: &Value) {
    let policy = policy.as_object().expect("an object");
    assert!(policy.keys().all(|key| ["Version", "Statement"].contains(&key.as_str())));
    assert_eq!(policy["Version"], "2012-10-17");
    let statements = policy["Statement"].as_array().expect("a list");
    assert!(!statements.is_empty());
    let mut sids = std::collections::BTreeSet::new();
    for statement in statements {
        let statement = statement.as_object().expect("an object");
        let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
        assert!(statement.keys().all(|key| known.contains(&key.as_str())), "{statement:?}");
        let sid = statement["Sid"].as_str().expect("text");
        assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{sid}");
        assert!(sids.insert(sid), "{sid} is there twice");
        assert_eq!(statement["Effect"], "Allow");
        for action in texts(&statement["Action"]) {
            let (service, name) = action.split_once(':').expect("`service:Action`");
            let is_service = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            assert!(service.bytes().all(is_service), "{action}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "no wildcard: {action}");
        }
        for resource in texts(&statement["Resource"]) {
            let is_arn = resource.starts_with("arn:") && resource.split(':').count() >= 6;
            assert!(is_arn || resource == "*", "{resource}");
        }
        if let Some(condition) = statement.get("Condition") {
            for keys in condition.as_object().expect("an object").values() {
                for (key, values) in keys.as_object().expect("an object") {
                    assert!(key.contains(':') && !texts(values).is_empty(), "{key}");
                }
            }
        }
    }
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("text")).collect()
}

const NEEDS_HOME: &str =
    "replace REGION and ACCOUNT_ID in the policy, or say --region and --account\n";

#[test]
fn polling_a_stream() {
    let config = "[sources.prod]\ntype = 'kinesis'\nstream = 'vpc-flow-logs'\n";
    check("kinesis-placeholders", config, &[], NEEDS_HOME);
    check("kinesis", config, &["--region", "eu-west-1", "--account", "123456789012"], "");
    let key = "arn:aws:kms:eu-west-1:123456789012:key/0a1b";
    let arn = "[sources.a]\ntype = 'kinesis'\nstream_arn = 'arn:aws:kinesis:eu-west-1:123456789012:stream/a'\n\
               [sources.b]\ntype = 'kinesis'\nstream_arn = 'arn:aws:kinesis:eu-west-1:123456789012:stream/b'\n";
    check("kinesis-encrypted", arn, &["--kms-key", key], "");
}

#[test]
fn being_pushed_to() {
    let home = ["--region", "eu-west-1", "--account", "123456789012"];
    let config =
        "[sources.prod]\ntype = 'kinesis'\nstream = 'vpc-flow-logs'\nconsumer = 'flowgauge'\n";
    check("fan-out", config, &home, "");
    check("fan-out-doctor", config, &[&home[..], &["--doctor"]].concat(), "");
    let config = "[sources.prod]\ntype = 'kinesis'\nderegister_consumer = true\n\
                  stream_arn = 'arn:aws:kinesis:eu-west-1:123456789012:stream/a'\n\
                  consumer_arn = 'arn:aws:kinesis:eu-west-1:123456789012:stream/a/consumer/c:1767225600'\n";
    check("fan-out-arns", config, &[], "");
}

#[test]
fn objects_and_queues() {
    let listing = "[sources.archive]\ntype = 's3'\nbucket = 'logs'\nprefix = 'AWSLogs/'\nregion = 'cn-north-1'\n";
    check("s3-listing", listing, &[], "");
    let queue = "[sources.prod]\ntype = 's3'\n\
                 queue_url = 'https://sqs.eu-west-1.amazonaws.com/123456789012/flow-logs'\n";
    let key = "arn:aws:kms:eu-west-1:123456789012:key/0a1b";
    let note = "replace BUCKET in the policy with the bucket that the queue tells of\n";
    check("s3-queue", queue, &["--kms-key", key], note);
}

#[test]
fn copies_of_snapshots() {
    let config = "[engine]\nstate_dir = 'state'\n[engine.checkpoint]\nremote = 's3://bucket/flowgauge/prod'\n\
                  region = 'eu-west-1'\n[sources.demo]\ntype = 'demo'\n";
    let key = "arn:aws:kms:eu-west-1:123456789012:key/0a1b";
    check("snapshots", config, &["--kms-key", key], "");
}

#[test]
fn log_groups() {
    let config = "[sources.groups]\ntype = 'cloudwatch_logs'\nregion = 'eu-west-1'\n\
                  log_groups = ['/vpc/b', 'arn:aws:logs:eu-west-1:210987654321:log-group:/vpc/a:*']\n";
    check("cloudwatch", config, &["--account", "123456789012", "--doctor"], "");
}

#[test]
fn what_stays_on_the_machine_needs_nothing() {
    let config = "[sources.demo]\ntype = 'demo'\n";
    check("nothing", config, &[], "this configuration needs nothing from AWS\n");
}

#[test]
fn arguments_are_checked() {
    for wrong in [["--account", "1"], ["--kms-key", "alias/a"]] {
        let output = run(&[&["iam", "policy", "-c", "x.toml"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2));
    }
    assert_eq!(run(&["iam", "policy", "-c", "/absent.toml"]).status.code(), Some(2));
}
