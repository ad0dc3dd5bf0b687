//! Signed calls in Amazon's Query protocol, which EC2 and its older siblings speak: a form in, XML out.
//!
//! For a handful of calls a client of our own costs seconds to compile where the service's SDK crate
//! costs minutes. Signing, HTTP and TLS are those of the SDK.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Connector, proxy::ProxyConfig};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::retry::{Backoff, Failure, FailureKind, jitter, kind_of_code};
use super::{AwsAccess, AwsAccessError};
use crate::causes::with_causes;
use crate::clock::Clock;

/// Most bytes of one answer; a page of a thousand items has far fewer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Tries of one call, the first included.
const TRIES_MAX: u32 = 5;
/// Pages of one listing: at the service's thousand items a page, a million items.
const PAGES_MAX: usize = 1_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A service that speaks the Query protocol.
pub struct QueryClient {
    service: &'static str,
    version: &'static str,
    url: String,
    region: String,
    credentials: SharedCredentialsProvider,
    connector: Connector,
    clock: Box<dyn Clock>,
}

/// Why a call was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Region or credentials are missing.
    #[error(transparent)]
    Access(#[from] AwsAccessError),
    /// The service says that the caller may not do this.
    #[error(
        "{service}:{action} is not allowed ({message}); allow it to the credentials' user or role"
    )]
    Denied {
        /// The service's name in a policy.
        service: &'static str,
        /// The action's name in a policy.
        action: String,
        /// What the service said.
        message: String,
    },
    /// The service refused, or was not reached.
    #[error("{action} failed: {message}")]
    Failed {
        /// The call.
        action: String,
        /// What was said.
        message: String,
    },
}

/// One page of a listing.
pub(super) trait Page: DeserializeOwned {
    /// What pages list.
    type Item;

    /// The items, and the token of the next page if there is one.
    fn into_parts(self) -> (Vec<Self::Item>, Option<String>);
}

impl QueryClient {
    /// EC2 of the region.
    ///
    /// # Errors
    /// If region or credentials are missing.
    pub async fn ec2(access: &AwsAccess, clock: Box<dyn Clock>) -> Result<Self, QueryError> {
        let config = access.load().await?;
        Ok(Self::new("ec2", "2016-11-15", &config, clock))
    }

    fn new(
        service: &'static str,
        version: &'static str,
        config: &SdkConfig,
        clock: Box<dyn Clock>,
    ) -> Self {
        let region = config.region().expect("`AwsAccess::load` checked it").to_string();
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        let public = format!("https://{service}.{region}.amazonaws.com{china}/");
        let url = config.endpoint_url().map_or(public, |endpoint| {
            if endpoint.ends_with('/') { endpoint.to_owned() } else { format!("{endpoint}/") }
        });
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build();
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .connector_settings(settings)
            .proxy_config(ProxyConfig::from_env())
            .build();
        let credentials = config.credentials_provider().expect("`AwsAccess::load` checked them");
        Self { service, version, url, region, credentials, connector, clock }
    }

    /// All pages of a listing.
    pub(super) async fn list<P: Page>(
        &self,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<Vec<P::Item>, QueryError> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut parameters = parameters.to_vec();
            parameters.extend(token.take().map(|token| ("NextToken".to_owned(), token)));
            let page: P = self.call(action, &parameters).await?;
            let (more, next) = page.into_parts();
            items.extend(more);
            match next.filter(|next| !next.is_empty()) {
                Some(next) => token = Some(next),
                None => return Ok(items),
            }
        }
        let message = format!("it has more than {PAGES_MAX} pages; ask for less");
        Err(QueryError::Failed { action: action.to_owned(), message })
    }

    /// One call, made again while what fails may pass.
    async fn call<T: DeserializeOwned>(
        &self,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<T, QueryError> {
        let mut backoff = Backoff::default();
        loop {
            let failure = match self.try_once(action, parameters).await {
                Ok(text) => {
                    return quick_xml::de::from_str(&text).map_err(|error| QueryError::Failed {
                        action: action.to_owned(),
                        message: format!("the answer is not what was expected: {error}"),
                    });
                }
                Err(failure) => failure,
            };
            let passes = matches!(failure.kind, FailureKind::Throttled | FailureKind::Transient);
            let delay = backoff.delay(failure.kind, jitter());
            if !passes || backoff.failures_in_a_row() >= TRIES_MAX {
                let (action, message) = (action.to_owned(), failure.message);
                return Err(match failure.kind {
                    FailureKind::Denied | FailureKind::Signature => {
                        QueryError::Denied { service: self.service, action, message }
                    }
                    _ => QueryError::Failed { action, message },
                });
            }
            sleep(delay).await;
        }
    }

    async fn try_once(
        &self,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<String, Failure> {
        let body = form(action, self.version, parameters);
        let credentials =
            self.credentials.provide_credentials().await.map_err(|error| Failure {
                kind: FailureKind::Denied,
                message: format!("no credentials: {}", with_causes(&error)),
            })?;
        let request = self.signed(&body, &credentials).map_err(transient)?;
        let response =
            self.connector.call(request).await.map_err(|error| transient(with_causes(&error)))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| transient(with_causes(&*error)))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if (200..300).contains(&status) { Ok(text) } else { Err(refusal(status, &text)) }
    }

    fn signed(&self, body: &str, credentials: &Credentials) -> Result<HttpRequest, String> {
        const CONTENT_TYPE: (&str, &str) =
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        let time: SystemTime = UNIX_EPOCH + Duration::from_millis(now_ms);
        let identity: Identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let signable = SignableRequest::new(
            "POST",
            &self.url,
            [CONTENT_TYPE].into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )
        .map_err(|error| with_causes(&error))?;
        let (instructions, _) =
            sign(signable, &parameters).map_err(|error| with_causes(&error))?.into_parts();
        let (headers, _) = instructions.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").map_err(|error| with_causes(&error))?;
        request.set_uri(self.url.as_str()).map_err(|error| with_causes(&error))?;
        request.headers_mut().insert(CONTENT_TYPE.0, CONTENT_TYPE.1);
        for header in headers {
            request.headers_mut().insert(header.name(), header.value().to_owned());
        }
        Ok(request)
    }
}

fn transient(message: String) -> Failure {
    Failure { kind: FailureKind::Transient, message }
}

/// The form of a call.
fn form(action: &str, version: &str, parameters: &[(String, String)]) -> String {
    let mut body = format!("Action={action}&Version={version}");
    for (name, value) in parameters {
        body.push('&');
        body.push_str(name);
        body.push('=');
        push_encoded(&mut body, value);
    }
    body
}

fn push_encoded(body: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            body.push(char::from(byte));
        } else {
            write!(body, "%{byte:02X}").expect("a String takes everything");
        }
    }
}

/// What an answer of another status says.
fn refusal(status: u16, text: &str) -> Failure {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Errors")]
        errors: Errors,
    }
    #[derive(Deserialize)]
    struct Errors {
        #[serde(rename = "Error")]
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "Code")]
        code: String,
        #[serde(rename = "Message", default)]
        message: String,
    }
    match quick_xml::de::from_str::<Answer>(text) {
        Ok(Answer { errors: Errors { error: Said { code, message } } }) => {
            let kind = match kind_of_code(&code) {
                // A code that nobody knows is a refusal if the status says so.
                FailureKind::Transient if (400..500).contains(&status) => FailureKind::Argument,
                kind => kind,
            };
            Failure { kind, message: format!("{code}: {message}") }
        }
        Err(_) => transient(format!("status {status} without a reason")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded() {
        let parameters = [("Filter.1.Value.1".to_owned(), "a b/ü~".to_owned())];
        assert_eq!(
            form("DescribeFlowLogs", "2016-11-15", &parameters),
            "Action=DescribeFlowLogs&Version=2016-11-15&Filter.1.Value.1=a%20b%2F%C3%BC~"
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        let check = |status, code: &str, kind, message: &str| {
            let text = format!(
                "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code>\
                 <Message>no</Message></Error></Errors><RequestID>1</RequestID></Response>"
            );
            let failure = refusal(status, &text);
            assert_eq!((failure.kind, failure.message.as_str()), (kind, message));
        };
        check(403, "UnauthorizedOperation", FailureKind::Denied, "UnauthorizedOperation: no");
        check(503, "RequestLimitExceeded", FailureKind::Throttled, "RequestLimitExceeded: no");
        check(500, "InternalError", FailureKind::Transient, "InternalError: no");
        check(
            400,
            "InvalidFlowLogId.NotFound",
            FailureKind::Argument,
            "InvalidFlowLogId.NotFound: no",
        );
        assert_eq!(refusal(502, "<html>").message, "status 502 without a reason");
    }
}
