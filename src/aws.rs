//! Access to AWS: region, credentials and endpoint, found by the standard chain of the AWS SDK.
//!
//! Sources and sinks that speak to AWS take an [`AwsAccess`] from their settings and get the
//! configuration of the SDK's clients from it. What is missing is found here, before the first call,
//! so that the message can say what to set instead of what an HTTP client saw.
//!
//! Calls of services for which no SDK crate is built in go through [`QueryClient`].

mod flow_logs;
mod query;
pub(crate) mod retry;

#[cfg(feature = "s3")]
pub mod s3;

use std::time::Duration;

use aws_config::default_provider::region::DefaultRegionChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;

pub use flow_logs::{FlowLog, FlowLogQuery, describe_flow_logs};
pub use query::{QueryClient, QueryError};

use crate::causes::with_causes;

/// What the settings say about reaching AWS; everything else comes from the environment, the profile
/// files and the instance or task role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsAccess {
    /// A region such as `eu-central-1`.
    pub region: Option<String>,
    /// A URL to use in place of the region's public endpoint.
    pub endpoint: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// Credentials that the caller has already; the chain is asked if there are none.
    pub credentials: Option<Credentials>,
}

/// What is missing to reach AWS.
#[derive(Debug, thiserror::Error)]
pub enum AwsAccessError {
    /// The chain names no region.
    #[error(
        "no AWS region is set; set `region`, the environment variable `AWS_REGION`, or `region` in the AWS profile"
    )]
    NoRegion,
    /// The chain yields no credentials.
    #[error(
        "no usable AWS credentials ({reason}); set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, name a `profile`, or run with an instance or task role"
    )]
    NoCredentials {
        /// What the chain said, causes included.
        reason: String,
    },
}

impl AwsAccess {
    /// With what the provider of a profile's credentials reaches STS.
    async fn provider_config(&self, profile: &str) -> ProviderConfig {
        let region = match &self.region {
            Some(region) => Some(Region::new(region.clone())),
            None => {
                let chain = DefaultRegionChain::builder().profile_name(profile).build();
                chain.region().await
            }
        };
        ProviderConfig::without_region().with_region(region)
    }

    /// The configuration for the SDK's clients, after checking that a region and credentials exist.
    ///
    /// # Errors
    /// If either is missing.
    pub async fn load(&self) -> Result<SdkConfig, AwsAccessError> {
        // A GetRecords answer may hold 10 MB: 30 seconds is what Amazon's own client library grants.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(30))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            // Asked for by name, it comes before the keys of the environment, as with Amazon's own tools.
            let provider = ProfileFileCredentialsProvider::builder()
                .configure(&self.provider_config(profile).await)
                .profile_name(profile)
                .build();
            loader = loader.profile_name(profile).credentials_provider(provider);
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(AwsAccessError::NoRegion);
        }
        let no_credentials = |reason| AwsAccessError::NoCredentials { reason };
        let provider = config
            .credentials_provider()
            .ok_or_else(|| no_credentials("the chain is empty".to_owned()))?;
        provider
            .provide_credentials()
            .await
            .map_err(|error| no_credentials(with_causes(&error)))?;
        Ok(config)
    }
}
