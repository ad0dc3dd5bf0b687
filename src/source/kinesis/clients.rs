//! The SDK's clients of a source, and with them its connections.
//!
//! Calls that are answered at once share one client. Subscriptions last for minutes, and over HTTP/2 all
//! those of a client share one connection, which carries only so many streams: a new client, and so a
//! new connection, is made for every [`STREAMS_PER_CONNECTION`] of them.

use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_sdk_kinesis::config::retry::RetryConfig;

/// Streams on one connection. Servers allow about a hundred; the window of a connection, 5 MB, is shared
/// by its streams as well.
const STREAMS_PER_CONNECTION: usize = 50;

/// The clients of one source.
#[derive(Debug)]
pub(super) struct Clients {
    polling: Client,
    config: aws_sdk_kinesis::config::Builder,
    streams: Mutex<Vec<StreamClient>>,
}

#[derive(Debug)]
struct StreamClient {
    client: Client,
    stream_count: usize,
}

/// A place for one stream in a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct StreamSlot {
    clients: Arc<Clients>,
    index: usize,
    client: Client,
}

impl Clients {
    /// Clients for the access that was found. Nothing is connected yet.
    pub(super) fn new(access: &SdkConfig) -> Arc<Self> {
        // The SDK's own retries would hide throttling from the pace and the counters, and sleep with
        // an iterator that runs out; the readers know better what to repeat, and when. Nor does it know
        // when a stream may be silent, or is held back.
        let config = aws_sdk_kinesis::config::Builder::from(access)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let polling = Client::from_conf(config.clone().build());
        Arc::new(Self { polling, config, streams: Mutex::default() })
    }

    /// The client of calls that are answered at once.
    pub(super) fn polling(&self) -> &Client {
        &self.polling
    }

    /// A client with room for one more stream.
    pub(super) fn stream(self: &Arc<Self>) -> StreamSlot {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let with_room = streams.iter().position(|one| one.stream_count < STREAMS_PER_CONNECTION);
        let index = with_room.unwrap_or_else(|| {
            let mut config = self.config.clone();
            // Without one that is shared, each client makes an HTTP client of its own.
            config.set_http_client(None);
            streams
                .push(StreamClient { client: Client::from_conf(config.build()), stream_count: 0 });
            streams.len() - 1
        });
        streams[index].stream_count += 1;
        StreamSlot { clients: Arc::clone(self), index, client: streams[index].client.clone() }
    }
}

impl StreamSlot {
    /// The client to subscribe with.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut streams = self.clients.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams[self.index].stream_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};

    use super::*;

    #[test]
    fn a_connection_has_so_many_streams_and_no_more() {
        let access = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .build();
        let clients = Clients::new(&access);
        let mut slots: Vec<StreamSlot> =
            (0..=STREAMS_PER_CONNECTION).map(|_| clients.stream()).collect();
        assert_eq!(
            (slots[STREAMS_PER_CONNECTION - 1].index, slots[STREAMS_PER_CONNECTION].index),
            (0, 1)
        );
        drop(slots.remove(3));
        assert_eq!(clients.stream().index, 0, "places are used again");
        assert_eq!(clients.streams.lock().unwrap().len(), 2);
    }
}
