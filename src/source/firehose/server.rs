//! Connections: who may have one, for how long, and how they end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::intake::Intake;
use crate::source::StopFlag;

/// How soon a request to stop is seen.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often certificates are looked at.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two log lines about requests that were refused.
const TROUBLE_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// TLS must come about within so long.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// The head of the next request must be there within so long, so that a connection may idle: longer than a load
/// balancer of AWS keeps one open, which would otherwise send into one that is being closed.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// The head of a request, and what is read at once: fifty of the longest common attributes, each character escaped.
const HEAD_BYTES_MAX: usize = 384 << 10;
/// How long requests may take to end when the source is told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long no connection is taken after the system had none to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server needs beside the intake.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    /// `None` for plain HTTP.
    pub(super) tls: Option<(Arc<Certificates>, TlsAcceptor)>,
    pub(super) connections_max: u32,
    pub(super) intake: Arc<Intake>,
}

impl Server {
    /// Serves until a stop is requested or nobody takes requests any more.
    pub(super) async fn serve(self, stop: StopFlag) {
        let Self { listener, tls, connections_max, intake } = self;
        let slots = Arc::new(Semaphore::new(connections_max as usize));
        let mut connections = JoinSet::new();
        let (ending, _) = watch::channel(false);
        let mut tick = interval(STOP_CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut care = Care::new();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    if stop.is_requested() || intake.submissions.is_closed() {
                        break;
                    }
                    care.take(&intake, tls.as_ref().map(|(certificates, _)| &**certificates));
                }
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                accepted = listener.accept() => {
                    let stream = match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            tracing::warn!(
                                source = &*intake.source_name,
                                error = &error as &dyn std::error::Error,
                                "no connection could be taken"
                            );
                            sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                        intake.counters.connections_refused.add(1);
                        continue;
                    };
                    intake.counters.connections.add(1);
                    let acceptor = tls.as_ref().map(|(_, acceptor)| acceptor.clone());
                    let (intake, ending) = (Arc::clone(&intake), ending.subscribe());
                    connections.spawn(async move {
                        connect(stream, acceptor, intake, ending).await;
                        drop(slot);
                    });
                }
            }
        }
        drop(listener);
        intake.is_stopping.store(true, Ordering::Relaxed);
        // Nobody may be connected.
        let _is_heard = ending.send(true).is_ok();
        let all_end = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, all_end).await.is_err() {
            connections.shutdown().await;
        }
        care.write_trouble(&intake);
    }
}

async fn connect(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    intake: Arc<Intake>,
    ending: watch::Receiver<bool>,
) {
    // Only a matter of speed.
    let _is_set = stream.set_nodelay(true).is_ok();
    let Some(acceptor) = acceptor else { return converse(stream, intake, ending).await };
    match timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, intake, ending).await,
        Ok(Err(error)) => {
            intake.counters.handshakes_failed.add(1);
            tracing::debug!(error = &error as &dyn std::error::Error, "TLS did not come about");
        }
        Err(_) => intake.counters.handshakes_failed.add(1),
    }
}

/// Answers the requests of a connection until it ends.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    intake: Arc<Intake>,
    mut ending: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let intake = Arc::clone(&intake);
        async move { Ok::<_, Infallible>(intake.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Whoever would tell of the end is gone only after it.
    let stopping = async { drop(ending.wait_for(|ending| *ending).await) };
    let early = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopping => None,
    };
    let ended = match early {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Whoever sends such requests sees it; here it would be a line for each.
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
    }
}

/// What is looked after from time to time.
struct Care {
    certificates_at: Instant,
    trouble_at: Instant,
    told: Told,
}

/// Counts of trouble.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    unauthorized: u64,
    rejected: u64,
    full: u64,
    cut: u64,
    connections_refused: u64,
    handshakes_failed: u64,
}

impl Told {
    const NOTHING: Self = Self {
        unauthorized: 0,
        rejected: 0,
        full: 0,
        cut: 0,
        connections_refused: 0,
        handshakes_failed: 0,
    };

    fn of(intake: &Intake) -> Self {
        let counters = &intake.counters;
        Self {
            unauthorized: counters.unauthorized.get(),
            rejected: counters.rejected.get(),
            full: counters.refused_full.get(),
            cut: counters.cut.get(),
            connections_refused: counters.connections_refused.get(),
            handshakes_failed: counters.handshakes_failed.get(),
        }
    }
}

impl Care {
    fn new() -> Self {
        let now = Instant::now();
        Self { certificates_at: now, trouble_at: now, told: Told::NOTHING }
    }

    fn take(&mut self, intake: &Intake, certificates: Option<&Certificates>) {
        let now = Instant::now();
        if let Some(certificates) = certificates
            && now.duration_since(self.certificates_at) >= CERTIFICATE_CHECK_INTERVAL
        {
            self.certificates_at = now;
            match certificates.reload() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(source = &*intake.source_name, "the certificate was read again");
                }
                Err(error) => tracing::error!(
                    source = &*intake.source_name,
                    error = &error as &dyn std::error::Error,
                    "the certificate can't be read again; the one before stays in force"
                ),
            }
        }
        if now.duration_since(self.trouble_at) >= TROUBLE_LOG_INTERVAL {
            self.trouble_at = now;
            self.write_trouble(intake);
        }
    }

    /// Says what was refused since this was last said.
    fn write_trouble(&mut self, intake: &Intake) {
        let now = Told::of(intake);
        let before = std::mem::replace(&mut self.told, now);
        if now == before {
            return;
        }
        let last = intake.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        tracing::warn!(
            source = &*intake.source_name,
            unauthorized = now.unauthorized - before.unauthorized,
            rejected = now.rejected - before.rejected,
            full = now.full - before.full,
            cut = now.cut - before.cut,
            connections_refused = now.connections_refused - before.connections_refused,
            handshakes_failed = now.handshakes_failed - before.handshakes_failed,
            last_error = last.unwrap_or_default(),
            "requests were refused"
        );
    }
}
