//! Copies of snapshots in a bucket: from the plan to a store that can be spoken to, and who this process is.

#[cfg(not(feature = "s3"))]
pub(crate) use absent::settings;
#[cfg(feature = "s3")]
pub(crate) use bucket::settings;

#[cfg(feature = "s3")]
mod bucket {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher as _;
    use std::sync::Arc;

    use anyhow::Context as _;
    use object_store::path::Path;
    use tokio::runtime::Builder;

    use crate::aws::AwsAccess;
    use crate::aws::s3::{Retries, bucket};
    use crate::checkpoint::{RemoteIdentity, RemoteSettings};
    use crate::cli::failure::Failure;
    use crate::clock::Clock;
    use crate::config::RemotePlan;

    /// Where Linux says what the machine is called, and tells its starts apart.
    const HOST_NAME: &str = "/proc/sys/kernel/hostname";
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

    /// The bucket of a plan. Nothing is asked of it yet.
    pub(crate) fn settings(
        plan: &RemotePlan,
        clock: &Arc<dyn Clock>,
    ) -> Result<RemoteSettings, Failure> {
        let RemotePlan { region, endpoint, profile, .. } = plan.clone();
        let access = AwsAccess { region, endpoint, profile, credentials: None };
        // Copies are made one after the other, on the thread that asks for them.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make the runtime that copies snapshots")
            .map_err(Failure::Running)?;
        let config = runtime.block_on(access.load()).map_err(Failure::usage)?;
        let store = bucket(&config, &plan.bucket, Retries::ByStore, Arc::clone(clock));
        let store =
            store.with_context(|| format!("cannot use `{plan}`")).map_err(Failure::Usage)?;
        Ok(RemoteSettings {
            store: Arc::new(store),
            prefix: Path::from(plan.prefix.as_str()),
            url: plan.to_string(),
            runtime,
            identity: identity(),
            takeover_after: plan.takeover_after,
            part_bytes_min: RemoteSettings::PART_BYTES_MIN,
        })
    }

    fn identity() -> RemoteIdentity {
        let read = |path| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let [high, low] = [0, 1].map(|half: u8| RandomState::new().hash_one(half));
        RemoteIdentity {
            run: u128::from(high) << 64 | u128::from(low),
            host: read(HOST_NAME).unwrap_or_else(|| "unknown".to_owned()),
            process: std::process::id(),
            boot: read(BOOT_ID),
        }
    }
}

#[cfg(not(feature = "s3"))]
mod absent {
    use std::sync::Arc;

    use crate::checkpoint::RemoteSettings;
    use crate::cli::failure::Failure;
    use crate::clock::Clock;
    use crate::config::RemotePlan;

    /// A plan that names a bucket is refused before.
    pub(crate) fn settings(
        _plan: &RemotePlan,
        _clock: &Arc<dyn Clock>,
    ) -> Result<RemoteSettings, Failure> {
        unreachable!("such a plan is faulty")
    }
}
