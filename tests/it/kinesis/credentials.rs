//! Credentials by each way of the standard chain: which key the calls to the stream are signed with.
//!
//! The services that hand out credentials (the instance's and the container's, STS) are scripted, because no
//! emulator of the tests has all of them.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::json;

use super::emulator::wait_for;
use super::scripted::{Script, ScriptedKinesis};
use crate::program::flowgauge;

/// A server that hands out credentials, each with a key that tells where it came from.
struct Issuer {
    endpoint: String,
    port: u16,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("issuer".into())
            .spawn(move || {
                for connection in listener.incoming() {
                    if is_done.load(Ordering::SeqCst) {
                        return;
                    }
                    // Whoever went away without an answer does not need one.
                    let _gone = issue(&connection.unwrap()).is_err();
                }
            })
            .unwrap();
        Self { endpoint: format!("http://127.0.0.1:{port}"), port, done, thread: Some(thread) }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// One request a connection.
fn issue(mut connection: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default();
    let answer = match path {
        "/latest/api/token" => "token".to_owned(),
        "/container" => issued("CONTAINER"),
        _ if path.ends_with("security-credentials/") => "role".to_owned(),
        _ if path.contains("security-credentials") => issued("INSTANCE"),
        _ if body.contains("Action=AssumeRoleWithWebIdentity") => {
            assert!(body.contains("WebIdentityToken=a-token"), "{body}");
            assumed("AssumeRoleWithWebIdentity", "WEBIDENTITY")
        }
        _ if body.contains("Action=AssumeRole") => assumed("AssumeRole", "ASSUMED"),
        _ => String::new(),
    };
    let status = if answer.is_empty() { "404 Not Found" } else { "200 OK" };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )
}

fn issued(key: &str) -> String {
    json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": key,
        "SecretAccessKey": "secret",
        "Token": "token",
        "AccountId": "123456789012",
        "Expiration": "2099-01-01T00:00:00Z",
    })
    .to_string()
}

fn assumed(action: &str, key: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
         <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/reader/x</Arn>\
         <AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser></{action}Result>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// Runs the stream job with nothing of AWS in its environment but `environment`; the key that it signs
/// with must be `expected`.
fn check(directory: &Path, profile: Option<&str>, environment: &[(&str, &str)], expected: &str) {
    let server = ScriptedKinesis::start(vec![Script::default()], 10);
    let profile = profile.map_or_else(String::new, |name| format!("profile = '{name}'\n"));
    let config = directory.join("flowgauge.toml");
    let text = format!(
        "[sources.prod]\ntype = 'kinesis'\nstream = 'flow'\nregion = 'us-east-1'\nendpoint = '{}'\n{profile}\
         [sinks.out]\ntype = 'stdout'\n",
        server.endpoint
    );
    std::fs::write(&config, text).unwrap();
    let mut command = flowgauge();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(["run", "-c"])
        .arg(&config)
        .env("HOME", directory)
        .env("AWS_CONFIG_FILE", directory.join("config"))
        .env("AWS_SHARED_CREDENTIALS_FILE", directory.join("credentials"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let signature = wait_for("a signed call", || {
        if let Some(status) = child.try_wait().unwrap() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{expected}: it ended with {status}: {said}");
        }
        server.signatures().into_iter().next()
    });
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
    child.wait().unwrap();
    assert_eq!(signature.access_key, expected);
}

#[test]
fn credentials_come_by_every_way_of_the_standard_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let issuer = Issuer::start();
    std::fs::write(path.join("issued.json"), {
        let keys = json!({"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "secret"});
        keys.to_string()
    })
    .unwrap();
    std::fs::write(path.join("token"), "a-token").unwrap();
    std::fs::write(
        path.join("credentials"),
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = secret\n\
         [named]\naws_access_key_id = NAMED\naws_secret_access_key = secret\n",
    )
    .unwrap();
    let role = "role_arn = arn:aws:iam::123456789012:role/reader";
    let program = format!("cat {}", path.join("issued.json").display());
    std::fs::write(
        path.join("config"),
        format!(
            "[profile process]\ncredential_process = {program}\n\
             [profile assumed]\n{role}\nsource_profile = named\n\
             [profile of-instance]\n{role}\ncredential_source = Ec2InstanceMetadata\n"
        ),
    )
    .unwrap();
    let token = path.join("token");
    let container = format!("{}/container", issuer.endpoint);
    let sts = ("AWS_ENDPOINT_URL_STS", issuer.endpoint.as_str());
    let instance = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", issuer.endpoint.as_str());
    let no_files = ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");

    let keys = [("AWS_ACCESS_KEY_ID", "ENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    check(path, None, &keys, "ENVIRONMENT");
    check(path, None, &[], "DEFAULT");
    check(path, None, &[("AWS_PROFILE", "named")], "NAMED");
    check(path, Some("named"), &keys, "NAMED");
    check(path, Some("process"), &[], "PROCESS");
    check(path, Some("assumed"), &[sts], "ASSUMED");
    check(path, Some("of-instance"), &[sts, instance], "ASSUMED");
    let identity = [
        sts,
        no_files,
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader"),
        ("AWS_REGION", "us-east-1"),
    ];
    check(path, None, &identity, "WEBIDENTITY");
    let of_container = [no_files, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str())];
    check(path, None, &of_container, "CONTAINER");
    check(path, None, &[no_files, instance], "INSTANCE");
}
