//! A proxy in front of a server that makes calls go wrong, by a seed: what no emulator can be made to
//! show, with an emulator's real answers.
//!
//! It reads each call, asks its [`FaultPlan`] what is to happen to it, and passes it on over a connection
//! of its own. Threads that wait at sockets do the work: `accept`, and one for each client connection.
//! All of them have ended when the proxy is dropped.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod plan;
mod relay;

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) use plan::{Dice, FaultKind, FaultPlan};

/// The proxy; ends when dropped.
pub(crate) struct FaultProxy {
    /// What clients are told to call.
    pub(crate) endpoint: String,
    /// The same, for a call over a bare connection.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What all connections of a proxy share.
pub(crate) struct Shared {
    upstream: SocketAddr,
    plan: Mutex<FaultPlan>,
    sockets: Mutex<Sockets>,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

/// Sockets in use, so that whoever waits at one can be woken; `None` once the proxy ends.
struct Sockets {
    next: u64,
    open: Option<BTreeMap<u64, TcpStream>>,
}

impl FaultProxy {
    /// A proxy in front of `upstream`.
    pub(crate) fn start(upstream: SocketAddr, plan: FaultPlan) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(plan),
            sockets: Mutex::new(Sockets { next: 0, open: Some(BTreeMap::new()) }),
            connections: Mutex::new(Vec::new()),
        });
        let its_shared = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || accept(&listener, &its_shared))
            .unwrap();
        let endpoint = format!("http://{address}");
        Self { endpoint, shared, address, accepting: Some(accepting) }
    }

    /// What went wrong so far, by kind.
    pub(crate) fn faults(&self) -> BTreeMap<FaultKind, u64> {
        self.shared.plan.lock().unwrap().done.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let open = self.shared.sockets.lock().unwrap().open.take();
        for socket in open.into_iter().flat_map(BTreeMap::into_values) {
            // One that has ended already is as good.
            let _ended = socket.shutdown(Shutdown::Both).is_ok();
        }
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        self.accepting.take().expect("dropped once").join().unwrap();
        let connections = std::mem::take(&mut *self.shared.connections.lock().unwrap());
        for connection in connections {
            connection.join().unwrap();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let client = client.unwrap();
        let Some(guard) = shared.keep(&client) else { return };
        let its_shared = Arc::clone(shared);
        let connection = std::thread::Builder::new()
            .name("proxy-client".into())
            .spawn(move || {
                // Whatever ends a connection is what a client has to live with.
                let _ended = relay::serve(&client, &its_shared).is_ok();
                drop(guard);
            })
            .unwrap();
        shared.connections.lock().unwrap().push(connection);
    }
}

impl Shared {
    /// Keeps a socket for as long as the guard lives; `None` when the proxy has ended.
    fn keep(self: &Arc<Self>, socket: &TcpStream) -> Option<Kept> {
        let mut sockets = self.sockets.lock().unwrap();
        let number = sockets.next;
        sockets.open.as_mut()?.insert(number, socket.try_clone().unwrap());
        sockets.next += 1;
        Some(Kept { shared: Arc::clone(self), number })
    }

    fn connect(self: &Arc<Self>) -> std::io::Result<(TcpStream, Kept)> {
        let upstream = TcpStream::connect(self.upstream)?;
        upstream.set_nodelay(true)?;
        let kept = self.keep(&upstream).ok_or(std::io::ErrorKind::NotConnected)?;
        Ok((upstream, kept))
    }
}

/// A socket that is kept; let go when dropped.
struct Kept {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(open) = &mut self.shared.sockets.lock().unwrap().open {
            open.remove(&self.number);
        }
    }
}
