//! What was acknowledged is counted once, whoever is killed and whatever is sent again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::{LINE, Post, body, connect, exchange, send};
use super::endpoint::{Endpoint, config, free_address, plain, wait_for};

#[test]
fn a_request_that_is_sent_again_counts_once_also_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), true, &plain(free_address()));
    let first = Post::new(body("first", &[LINE.as_bytes(); 5]));
    let second = Post::new(body("second", &[LINE.as_bytes(); 7]));
    let endpoint = Endpoint::start(&config);
    for _ in 0..3 {
        let answer = send(endpoint.address, &first);
        assert_eq!((answer.status, &answer.json()["requestId"]), (200, &"first".into()));
    }
    endpoint.kill();
    let endpoint = Endpoint::start(&config);
    assert_eq!(send(endpoint.address, &second).status, 200);
    assert_eq!(send(endpoint.address, &first).status, 200);
    let summary = endpoint.stop();
    assert_eq!(summary["records"]["ok"], 12, "{summary}");
    // Nothing is left to be read in a run that goes on.
    let endpoint = Endpoint::start(&config);
    assert_eq!(send(endpoint.address, &second).status, 200);
    assert_eq!(endpoint.stop()["records"]["ok"], 12);
}

/// Sends a request until it is acknowledged, as Firehose does: whatever went wrong, the same again.
fn deliver(address: SocketAddr, request_id: &str, records: usize) {
    let request = Post::new(body(request_id, &vec![LINE.as_bytes(); records])).bytes();
    wait_for("an acknowledgement", || {
        let answer = connect(address).and_then(|stream| exchange(stream, &request));
        answer.is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn kills_lose_nothing_and_count_nothing_twice() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 60;
    const RECORDS: usize = 50;
    const KILLS: u64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = config(directory.path(), true, &plain(address));
    let delivered = AtomicU64::new(0);
    let endpoint = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let delivered = &delivered;
            std::thread::Builder::new()
                .spawn_scoped(scope, move || {
                    for number in 0..REQUESTS {
                        deliver(address, &format!("{client}-{number}"), RECORDS);
                        delivered.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .unwrap();
        }
        let mut endpoint = Endpoint::start(&config);
        let all = (CLIENTS * REQUESTS) as u64;
        for kill in 1..=KILLS {
            let enough = all * kill / (KILLS + 1);
            wait_for("progress", || delivered.load(Ordering::Relaxed) >= enough);
            endpoint.kill();
            endpoint = Endpoint::start(&config);
        }
        endpoint
    });
    let summary = endpoint.stop();
    assert_eq!(summary["records"]["ok"], CLIENTS * REQUESTS * RECORDS, "{summary}");
}

#[test]
fn without_a_state_directory_it_is_said_and_repeats_count_once_as_long_as_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::start(&config(directory.path(), false, &plain(address)));
    assert!(endpoint.log().contains("acknowledged when they were handed on"));
    for id in ["a", "b", "a"] {
        let request = Post::new(body(id, &[LINE.as_bytes()]));
        assert_eq!(send(endpoint.address, &request).status, 200);
    }
    assert_eq!(endpoint.stop()["records"]["ok"], 2);
}
