//! A bucket of S3 as an object store: credentials by the AWS chain, region, endpoint.
//!
//! The store signs every request with what `ChainCredentials` holds, which asks the chain again before
//! what it has expires. A custom endpoint gets the bucket in the path, since few emulators and private
//! stores have a host name per bucket; plain HTTP is spoken only to an endpoint that is written so.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::{BackoffConfig, ClientOptions, CredentialProvider, RetryConfig};

use crate::causes::with_causes;
use crate::clock::Clock;

/// The endpoint of S3 alone, which the SDKs prefer to the one for all services.
const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL_S3";
/// How long a request may take with its answer; callers ask for a few MiB at a time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the store itself makes a failed request again, and for how long.
const RETRIES_MAX: usize = 6;
const RETRYING_MAX: Duration = Duration::from_mins(1);
/// Credentials are replaced so long before they expire.
const RENEW_BEFORE_MS: i64 = 5 * 60 * 1000;
/// Credentials without an end are asked for again after this time, as the SDK does.
const UNDATED_MS: i64 = 15 * 60 * 1000;
/// Least time between two questions to the chain.
const ASK_INTERVAL_MS: i64 = 30 * 1000;

/// Who makes a failed request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// The store, a few times with growing random waits, within a minute.
    ByStore,
    /// The caller, who counts them.
    ByCaller,
}

/// Opens nothing yet: a bucket that requests can be made to.
///
/// # Errors
/// If the name of the bucket or the endpoint makes no URL.
pub fn bucket(
    config: &SdkConfig,
    bucket: &str,
    retries: Retries,
    clock: Arc<dyn Clock>,
) -> Result<AmazonS3, object_store::Error> {
    let region = config.region().map(AsRef::as_ref).unwrap_or_default();
    let options =
        ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_region(region);
    builder = match endpoint(config) {
        Some(endpoint) => {
            let is_plain = endpoint.starts_with("http://");
            builder.with_client_options(options.with_allow_http(is_plain)).with_endpoint(endpoint)
        }
        None => match public_endpoint(bucket, region) {
            Some(endpoint) => builder.with_client_options(options).with_endpoint(endpoint),
            None => builder.with_client_options(options).with_virtual_hosted_style_request(true),
        },
    };
    if let Some(provider) = config.credentials_provider() {
        builder = builder.with_credentials(Arc::new(ChainCredentials::new(provider, clock)));
    }
    builder.with_retry(retry_config(retries)).build()
}

/// Where requests go if not to Amazon's own endpoint of the region.
fn endpoint(config: &SdkConfig) -> Option<String> {
    let of_all_services = config.endpoint_url().map(str::to_owned);
    of_all_services.or_else(|| std::env::var(ENDPOINT_VARIABLE).ok().filter(|url| !url.is_empty()))
}

/// Amazon's endpoint with the bucket in the path, where the host name per bucket can't be used: a dot in
/// it does not fit the certificate, and China has a domain of its own.
fn public_endpoint(bucket: &str, region: &str) -> Option<String> {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let needs_path = bucket.contains('.') || region.starts_with("cn-");
    needs_path.then(|| format!("https://s3.{region}.{domain}"))
}

fn retry_config(retries: Retries) -> RetryConfig {
    let max_retries = match retries {
        Retries::ByStore => RETRIES_MAX,
        Retries::ByCaller => 0,
    };
    RetryConfig { backoff: BackoffConfig::default(), max_retries, retry_timeout: RETRYING_MAX }
}

/// The credentials that the chain gave last, until they are due.
struct ChainCredentials {
    provider: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    credential: Arc<AwsCredential>,
    renew_at_ms: i64,
    expires_at_ms: i64,
}

impl ChainCredentials {
    fn new(provider: SharedCredentialsProvider, clock: Arc<dyn Clock>) -> Self {
        Self { provider, clock, known: Mutex::default() }
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn credential(&self) -> Result<Arc<AwsCredential>, object_store::Error> {
        let now_ms = self.clock.now_ms();
        let known = self.known();
        if let Some(known) = &known
            && now_ms < known.renew_at_ms
        {
            return Ok(Arc::clone(&known.credential));
        }
        // Requests that run at this moment may all ask; the SDK's providers bear it.
        let next = match self.provider.provide_credentials().await {
            Ok(credentials) => Known::of(&credentials, now_ms),
            Err(error) => match known {
                Some(known) if now_ms < known.expires_at_ms => {
                    tracing::warn!(error = with_causes(&error), "cannot renew AWS credentials yet");
                    Known { renew_at_ms: now_ms + ASK_INTERVAL_MS, ..known }
                }
                _ => {
                    return Err(object_store::Error::Unauthenticated {
                        path: "credentials".to_owned(),
                        source: Box::new(error),
                    });
                }
            },
        };
        let credential = Arc::clone(&next.credential);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(credential)
    }
}

impl Known {
    fn of(credentials: &Credentials, now_ms: i64) -> Self {
        let expires_at_ms = credentials
            .expiry()
            .and_then(|moment| moment.duration_since(UNIX_EPOCH).ok())
            .and_then(|since_epoch| i64::try_from(since_epoch.as_millis()).ok());
        let renew_at_ms = match expires_at_ms {
            Some(expires_at_ms) => expires_at_ms - RENEW_BEFORE_MS,
            None => now_ms + UNDATED_MS,
        };
        let credential = AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(str::to_owned),
        };
        Self {
            credential: Arc::new(credential),
            renew_at_ms: renew_at_ms.max(now_ms + ASK_INTERVAL_MS),
            expires_at_ms: expires_at_ms.unwrap_or(i64::MAX),
        }
    }
}

// Secrets have no place in a log.
impl std::fmt::Debug for ChainCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainCredentials").finish_non_exhaustive()
    }
}

impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    // The trait is one of `async-trait`; this is what that macro would write.
    fn get_credential<'a, 'out>(
        &'a self,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<AwsCredential>, object_store::Error>> + Send + 'out>>
    where
        'a: 'out,
        Self: 'out,
    {
        Box::pin(self.credential())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::provider::{error::CredentialsError, future};

    use super::*;
    use crate::clock::ManualClock;

    /// Gives credentials that live for some minutes, or none.
    #[derive(Debug)]
    struct Chain {
        clock: Arc<ManualClock>,
        lifetime: Option<Duration>,
        answers_max: u64,
        asked: Arc<AtomicU64>,
    }

    impl ProvideCredentials for Chain {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            if number >= self.answers_max {
                let error = CredentialsError::provider_error("the role is gone");
                return future::ProvideCredentials::ready(Err(error));
            }
            let now = UNIX_EPOCH + Duration::from_millis(self.clock.now_ms().unsigned_abs());
            let expiry = self.lifetime.map(|lifetime| now + lifetime);
            let credentials = Credentials::new(format!("key{number}"), "s", None, expiry, "test");
            future::ProvideCredentials::ready(Ok(credentials))
        }
    }

    /// The key after each of some minutes, `-` for none.
    fn check(lifetime_minutes: Option<u64>, answers_max: u64, minutes: &[u64], expected: &[&str]) {
        let clock = Arc::new(ManualClock::default());
        let chain = Chain {
            clock: Arc::clone(&clock),
            lifetime: lifetime_minutes.map(Duration::from_mins),
            answers_max,
            asked: Arc::default(),
        };
        let provider = SharedCredentialsProvider::new(chain);
        let credentials = ChainCredentials::new(provider, Arc::clone(&clock) as Arc<dyn Clock>);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut keys = Vec::new();
        for minute in minutes {
            clock.advance(Duration::from_mins(*minute));
            let credential = runtime.block_on(credentials.get_credential());
            keys.push(credential.map_or("-".to_owned(), |credential| credential.key_id.clone()));
        }
        assert_eq!(keys, expected);
    }

    #[test]
    fn credentials_are_renewed_before_they_expire() {
        check(Some(60), 9, &[0, 54, 1, 1], &["key0", "key0", "key1", "key1"]);
        check(None, 9, &[0, 14, 1], &["key0", "key0", "key1"]);
    }

    #[test]
    fn credentials_are_used_to_their_end_if_there_are_no_new_ones() {
        check(Some(60), 1, &[0, 57, 2, 1], &["key0", "key0", "key0", "-"]);
    }

    fn check_url(bucket_name: &str, region: &str, endpoint: Option<&str>, expected: &str) {
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()));
        config.set_endpoint_url(endpoint.map(str::to_owned));
        let clock = Arc::new(ManualClock::default());
        let store = bucket(&config.build(), bucket_name, Retries::ByCaller, clock).unwrap();
        assert!(format!("{store:?}").contains(expected), "{store:?}");
    }

    #[test]
    fn buckets_are_found_at_their_endpoint() {
        check_url("logs", "eu-west-1", None, "https://logs.s3.eu-west-1.amazonaws.com");
        check_url("my.logs", "eu-west-1", None, "https://s3.eu-west-1.amazonaws.com/my.logs");
        check_url("logs", "cn-north-1", None, "https://s3.cn-north-1.amazonaws.com.cn/logs");
        let local = Some("http://127.0.0.1:4566");
        check_url("logs", "eu-west-1", local, "http://127.0.0.1:4566/logs");
    }
}
