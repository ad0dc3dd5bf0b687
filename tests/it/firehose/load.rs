//! Full, slow and many: who can't be served is told so at once, and the others are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::client::{LINE, Post, body, connect, exchange, read_answer, send};
use super::endpoint::{Endpoint, config, plain, wait_for};

fn endpoint(directory: &std::path::Path, more: &str) -> Endpoint {
    let source = plain("127.0.0.1:0".parse().unwrap()) + more;
    Endpoint::start(&config(directory, true, &source))
}

#[test]
fn what_does_not_fit_into_memory_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path(), "memory_max = '160MiB'");
    // A request that says it is large has its memory set aside before it comes: then it is told to come.
    let large = Post::new("").with("Content-Length", &(64 << 20).to_string());
    let large = large.with("Expect", "100-continue").bytes();
    let ask = || {
        let mut stream = connect(endpoint.address).unwrap();
        stream.write_all(&large).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        (stream, answer)
    };
    let (holder, answer) = ask();
    assert_eq!(answer.status, 100, "{answer:?}");
    let (_, answer) = ask();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{answer:?}");
    assert_eq!(answer.json().as_object().unwrap().len(), 3);
    let small = Post::new(body("small", &[LINE.as_bytes()]));
    assert_eq!(send(endpoint.address, &small).status, 200, "there is room for small ones");
    drop(holder);
    wait_for("room", || ask().1.status == 100);
    assert_eq!(endpoint.stop()["records"]["ok"], 1);
}

#[test]
fn a_large_request_is_taken_whole() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path(), "");
    let lines = format!("{LINE}\n").repeat(9_000);
    let records = vec![lines.as_bytes(); 40];
    let text = body("large", &records);
    assert!(text.len() > 40 << 20);
    assert_eq!(send(endpoint.address, &Post::new(text)).status, 200);
    assert_eq!(endpoint.stop()["records"]["ok"], 360_000);
}

#[test]
fn idle_and_slow_connections_do_not_keep_others_out() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = endpoint(directory.path(), "connections_max = 300");
    let started = Post::new(body("slow", &[LINE.as_bytes()])).bytes();
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..290 {
        let mut stream = connect(endpoint.address).unwrap();
        // None of the request, a part of its head, or all but the end of its body.
        let sent = [0, 30, started.len() - 5][number % 3];
        stream.write_all(&started[..sent]).unwrap();
        held.push(stream);
    }
    let request = Post::new(body("quick", &[LINE.as_bytes()]));
    assert_eq!(send(endpoint.address, &request).status, 200);
    for _ in 0..10 {
        held.push(connect(endpoint.address).unwrap());
    }
    wait_for("a refused connection", || {
        let mut stream = connect(endpoint.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let is_refused = match stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        held.push(stream);
        is_refused
    });
    let mut slow = held.swap_remove(2);
    let rest = &started[started.len() - 5..];
    assert_eq!(exchange(&mut slow, rest).unwrap().status, 200, "slow is not too slow");
    drop(held);
    wait_for("room", || {
        let answer =
            connect(endpoint.address).and_then(|stream| exchange(stream, &request.bytes()));
        answer.is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(endpoint.stop()["records"]["ok"], 2);
}
