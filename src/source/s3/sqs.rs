//! The calls to SQS, and what their errors mean.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName,
};

use super::failure::FailureKind;
use super::settings::QueueSettings;
use crate::causes::with_causes;

/// Most messages of one call.
pub(super) const BATCH_MAX: usize = 10;
/// How long a call waits for messages; SQS allows no more.
const WAIT_SECONDS: i32 = 20;

/// A queue.
pub(super) struct Queue {
    client: Client,
    url: String,
}

/// A message as it came.
pub(super) struct Received {
    /// The same each time that the message is delivered.
    pub(super) id: Arc<str>,
    /// For this delivery.
    pub(super) handle: String,
    /// How often it was delivered, from 1.
    pub(super) receive_count: u32,
    pub(super) body: String,
}

/// A failed call.
#[derive(Debug)]
pub(super) struct QueueFailure {
    pub(super) kind: FailureKind,
    /// What was said, and what to do.
    pub(super) message: String,
}

impl QueueFailure {
    /// Whether nobody but a person can change it.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self.kind, FailureKind::Denied | FailureKind::Refused)
    }

    fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let reason = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => with_causes(error),
        };
        let code = error.code().unwrap_or_default();
        let (kind, hint) = match code.rsplit(['.', '#']).next().unwrap_or_default() {
            "QueueDoesNotExist" | "NonExistentQueue" | "InvalidAddress" => {
                (FailureKind::Refused, "; check `queue_url` and `region`")
            }
            "AccessDenied" | "AccessDeniedException" => (
                FailureKind::Denied,
                "; allow `sqs:ReceiveMessage`, `sqs:DeleteMessage` and `sqs:ChangeMessageVisibility` on the queue",
            ),
            code if code.starts_with("Kms") || code.starts_with("KMS") => {
                (FailureKind::Denied, "; allow `kms:Decrypt` on the queue's KMS key")
            }
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidSignatureException" => {
                (FailureKind::Denied, "; renew the credentials, and check the clock")
            }
            "RequestThrottled" | "ThrottlingException" | "Throttling" | "OverLimit" => {
                (FailureKind::Throttled, "")
            }
            _ => (FailureKind::Transient, ""),
        };
        Self { kind, message: format!("{reason}{hint}") }
    }
}

impl Queue {
    pub(super) fn new(config: &SdkConfig, settings: &QueueSettings) -> Self {
        let config =
            aws_sdk_sqs::config::Builder::from(config).endpoint_url(settings.endpoint()).build();
        Self { client: Client::from_conf(config), url: settings.url.clone() }
    }

    /// Waits a while for messages, and keeps them from others for some time.
    pub(super) async fn receive(
        &self,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueFailure> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await
            .map_err(|error| QueueFailure::of(&error))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .filter_map(|message| {
                let count = MessageSystemAttributeName::ApproximateReceiveCount;
                let attributes = message.attributes.as_ref();
                let receive_count = attributes.and_then(|attributes| attributes.get(&count));
                Some(Received {
                    id: message.message_id.as_deref()?.into(),
                    receive_count: receive_count.and_then(|count| count.parse().ok()).unwrap_or(1),
                    // Without a handle it is not a delivery; SQS will deliver it again.
                    handle: message.receipt_handle?,
                    body: message.body.unwrap_or_default(),
                })
            })
            .collect())
    }

    /// Deletes messages; gives those of which that failed.
    pub(super) async fn delete(&self, handles: Vec<String>) -> Vec<String> {
        let entries = handles.iter().enumerate().map(|(index, handle)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle)
                .build()
                .expect("id and handle are set")
        });
        let call = self.client.delete_message_batch().queue_url(&self.url);
        match call.set_entries(Some(entries.collect())).send().await {
            Ok(answer) => {
                let failed = answer.failed.iter().filter(|failed| {
                    tracing::warn!(
                        code = failed.code,
                        error = failed.message,
                        "cannot delete a message"
                    );
                    // The sender's fault: a handle too old. The message comes again and is known then.
                    !failed.sender_fault
                });
                failed
                    .filter_map(|failed| handles.get(failed.id.parse::<usize>().ok()?).cloned())
                    .collect()
            }
            Err(error) => {
                let failure = QueueFailure::of(&error);
                tracing::warn!(error = failure.message, "cannot delete messages yet");
                match failure.kind {
                    // Denied for good: they come again, are known then, and are said again.
                    FailureKind::Denied | FailureKind::Refused => Vec::new(),
                    _ => handles,
                }
            }
        }
    }

    /// Keeps messages from others for so long from now on. A failure is only told: they come again sooner.
    pub(super) async fn hide(&self, handles: Vec<(String, Duration)>) {
        let entries = handles.iter().enumerate().map(|(index, (handle, visibility))| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle)
                .visibility_timeout(seconds(*visibility))
                .build()
                .expect("id and handle are set")
        });
        let call = self.client.change_message_visibility_batch().queue_url(&self.url);
        if let Err(error) = call.set_entries(Some(entries.collect())).send().await {
            let failure = QueueFailure::of(&error);
            tracing::warn!(error = failure.message, "cannot change how long messages stay hidden");
        }
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).expect("visibility is at most twelve hours")
}
