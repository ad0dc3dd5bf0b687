//! CloudWatch Logs to a Kinesis stream, by the one emulator whose subscriptions deliver.

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use flowgauge::clock::{Clock, SystemClock};

use super::{RECORDS, generated};
use crate::job::{self, Job, figures};
use crate::kinesis::emulator::Stream;
use crate::program::summary;
use crate::servers::{Emulator, Sdk};

/// Log events of one call, which become one record of the stream.
const EVENTS_PER_CALL: usize = 250;

/// A log group whose subscription delivers to a stream.
struct Group {
    sdk: Sdk,
    client: Client,
}

impl Group {
    const NAME: &str = "flow-logs";
    const STREAM: &str = "eni-0a1b2c3d-all";

    fn create(moto: &Emulator, destination: &str) -> Self {
        let sdk = Sdk::new(&moto.endpoint);
        let client = Client::new(&sdk.config);
        sdk.runtime.block_on(async {
            client.create_log_group().log_group_name(Self::NAME).send().await.unwrap();
            let stream = client.create_log_stream().log_group_name(Self::NAME);
            stream.log_stream_name(Self::STREAM).send().await.unwrap();
            let filter = client.put_subscription_filter().log_group_name(Self::NAME);
            let filter = filter.filter_name("all").filter_pattern("").destination_arn(destination);
            filter.role_arn("arn:aws:iam::123456789012:role/delivery").send().await.unwrap();
        });
        Self { sdk, client }
    }

    fn put(&self, lines: &[&str]) {
        let now = SystemClock::new().now().0 * 1000;
        for call in lines.chunks(EVENTS_PER_CALL) {
            let events = call.iter().map(|line| {
                InputLogEvent::builder().timestamp(now).message(*line).build().unwrap()
            });
            let put = self.client.put_log_events().log_group_name(Self::NAME);
            let put = put.log_stream_name(Self::STREAM).set_log_events(Some(events.collect()));
            self.sdk.runtime.block_on(put.send()).unwrap();
        }
    }
}

#[test]
fn a_subscription_delivers_through_a_stream() {
    const STREAM: &str = "subscribed";
    let directory = tempfile::tempdir().unwrap();
    let moto = Emulator::moto(None);
    let stream = Stream::create(&moto, STREAM, 2);
    let group = Group::create(&moto, &stream.arn());
    let file = generated(directory.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("version")).collect();
    assert_eq!(lines.len(), RECORDS);

    let source = format!(
        "[sources.prod]\ntype = 'kinesis'\nstream = '{STREAM}'\nregion = 'us-east-1'\n\
         endpoint = '{}'\npoll_interval = '200ms'\nrecords_per_call_max = 2",
        moto.endpoint,
    );
    let config = job::config(directory.path(), &source);

    let (first, rest) = lines.split_at(RECORDS * 2 / 3);
    group.put(first);
    let mut job = Job::start(&config);
    job.read_until(RECORDS as u64 / 3);
    assert!(job.total("prod", "records") > 0);
    job.kill();
    group.put(rest);
    let mut job = Job::start(&config);
    job.read_until(RECORDS as u64);
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&[&file])));
    assert_eq!(counted["records"]["total"], RECORDS as u64);
}
