//! The stream's consumer of enhanced fan-out: found again, or registered, and waited for.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;
use tokio::time::sleep;

use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::settings::{ConsumerAddress, FanOut, StreamAddress};
use super::shared::Shared;

/// Looks at a consumer that is being made or deleted: about two minutes.
const LOOKS_MAX: u32 = 120;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Failed calls in a row before the source gives up: about half a minute.
const TRIES_MAX: u32 = 10;

/// A consumer that can subscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    /// Its ARN.
    pub(super) arn: Arc<str>,
}

/// What the service says of a consumer.
struct Found {
    arn: String,
    status: ConsumerStatus,
}

/// The consumer of the settings, registered if there is none of its name, when it is active.
///
/// # Errors
/// What to tell, with what to do.
pub(super) async fn consumer(shared: &Shared, fan_out: &FanOut) -> Result<Consumer, String> {
    let registry = Registry { shared };
    let mut is_registered = false;
    let mut stream_arn = None;
    for _ in 0..LOOKS_MAX {
        let found = match &fan_out.consumer {
            ConsumerAddress::Arn(arn) => registry.look(None, None, Some(arn)).await?,
            ConsumerAddress::Name(name) => {
                if stream_arn.is_none() {
                    stream_arn = Some(registry.stream_arn().await?);
                }
                registry.look(stream_arn.as_deref(), Some(name), None).await?
            }
        };
        match (found, &fan_out.consumer) {
            (Some(Found { arn, status: ConsumerStatus::Active }), _) => {
                tracing::info!(
                    source = &*shared.source_name,
                    consumer = arn,
                    registered = is_registered,
                    "reading by enhanced fan-out"
                );
                return Ok(Consumer { arn: arn.into() });
            }
            // It is being made, or deleted by somebody else.
            (Some(_), _) => sleep(LOOK_INTERVAL).await,
            (None, ConsumerAddress::Arn(arn)) => {
                return Err(format!(
                    "there is no consumer `{arn}`; register it, or name one with `consumer`, which is registered if it does not exist"
                ));
            }
            (None, ConsumerAddress::Name(name)) => {
                let stream_arn = stream_arn.as_deref().expect("it was asked for above");
                registry.register(stream_arn, name).await?;
                is_registered = true;
            }
        }
    }
    Err(format!(
        "{} is not active after two minutes; look at it with `aws kinesis list-stream-consumers`",
        shown(&fan_out.consumer)
    ))
}

/// Takes the consumer off the stream; what fails is only told, because it keeps nobody from anything.
pub(super) async fn deregister(shared: &Shared, consumer: &Consumer) {
    let request =
        shared.clients.polling().deregister_stream_consumer().consumer_arn(&*consumer.arn);
    let source = &*shared.source_name;
    match request.send().await.map_err(Failure::from) {
        Ok(_) => tracing::info!(source, consumer = &*consumer.arn, "the consumer was deregistered"),
        Err(failure) => tracing::warn!(
            source,
            consumer = &*consumer.arn,
            error = failure.message,
            "the consumer could not be deregistered; allow `kinesis:DeregisterStreamConsumer` on it, or deregister it with `aws kinesis deregister-stream-consumer`"
        ),
    }
}

fn shown(address: &ConsumerAddress) -> String {
    match address {
        ConsumerAddress::Name(name) => format!("consumer `{name}`"),
        ConsumerAddress::Arn(arn) => format!("consumer `{arn}`"),
    }
}

/// Calls about consumers, made again while they fail in passing.
struct Registry<'a> {
    shared: &'a Shared,
}

impl Registry<'_> {
    async fn stream_arn(&self) -> Result<String, String> {
        let name = match &self.shared.settings.stream {
            StreamAddress::Arn(arn) => return Ok(arn.clone()),
            StreamAddress::Name(name) => name,
        };
        let mut backoff = Backoff::default();
        loop {
            let describe = self.shared.clients.polling().describe_stream_summary();
            let failure = match describe.stream_name(name).send().await.map_err(Failure::from) {
                Ok(answer) => {
                    let summary = answer.stream_description_summary;
                    return summary.map(|summary| summary.stream_arn).ok_or_else(|| {
                        format!("stream `{name}` has no ARN; set `stream_arn` or `consumer_arn`")
                    });
                }
                Err(failure) => failure,
            };
            self.wait(&mut backoff, failure, &format!(
                "cannot find the ARN of stream `{name}`; allow `kinesis:DescribeStreamSummary` on it, or set `stream_arn`"
            ))
            .await?;
        }
    }

    async fn look(
        &self,
        stream_arn: Option<&str>,
        name: Option<&str>,
        arn: Option<&str>,
    ) -> Result<Option<Found>, String> {
        let mut backoff = Backoff::default();
        loop {
            let describe = self
                .shared
                .clients
                .polling()
                .describe_stream_consumer()
                .set_stream_arn(stream_arn.map(str::to_owned))
                .set_consumer_name(name.map(str::to_owned))
                .set_consumer_arn(arn.map(str::to_owned));
            let failure = match describe.send().await.map_err(Failure::from) {
                Ok(answer) => {
                    let found = |described: aws_sdk_kinesis::types::ConsumerDescription| Found {
                        arn: described.consumer_arn,
                        status: described.consumer_status,
                    };
                    return Ok(answer.consumer_description.map(found));
                }
                Err(failure) if failure.kind == FailureKind::NotFound => return Ok(None),
                Err(failure) => failure,
            };
            let advice = "cannot look at the consumer; allow `kinesis:DescribeStreamConsumer` on the stream and on its consumers (`…/consumer/*`)";
            self.wait(&mut backoff, failure, advice).await?;
        }
    }

    async fn register(&self, stream_arn: &str, name: &str) -> Result<(), String> {
        let mut backoff = Backoff::default();
        loop {
            let register = self.shared.clients.polling().register_stream_consumer();
            let register = register.stream_arn(stream_arn).consumer_name(name);
            let failure = match register.send().await.map_err(Failure::from) {
                Ok(_) => return Ok(()),
                // Somebody else was faster: it is there.
                Err(failure) if failure.kind == FailureKind::InUse => return Ok(()),
                Err(failure) => failure,
            };
            let advice = format!(
                "cannot register consumer `{name}`; allow `kinesis:RegisterStreamConsumer` on the stream and on its consumers (`…/consumer/*`), and keep to 20 consumers for a stream"
            );
            self.wait(&mut backoff, failure, &advice).await?;
        }
    }

    /// Waits before the call is made again, if that makes sense.
    async fn wait(
        &self,
        backoff: &mut Backoff,
        failure: Failure,
        advice: &str,
    ) -> Result<(), String> {
        let delay = backoff.delay(failure.kind, jitter());
        let may_pass = match failure.kind {
            FailureKind::Throttled | FailureKind::Transient | FailureKind::InUse => {
                backoff.failures_in_a_row() < TRIES_MAX
            }
            FailureKind::Signature => {
                backoff.failures_in_a_row() < super::reader::SIGNATURE_TRIES_MAX
            }
            _ => false,
        };
        if !may_pass {
            return Err(format!("{advice} ({})", failure.message));
        }
        self.shared.counters.retried.add(1);
        self.shared.trouble.note(failure.message);
        sleep(delay).await;
        Ok(())
    }
}
