//! `flowgauge iam policy`: the least that a configuration needs from AWS, as an IAM policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output;
use crate::config::{self, Extras};
use crate::iam::{BUCKET_PLACEHOLDER, Home};

/// Permissions in AWS
#[derive(Debug, Args)]
pub(crate) struct IamArgs {
    #[command(subcommand)]
    command: IamCommand,
}

#[derive(Debug, Subcommand)]
enum IamCommand {
    Policy(PolicyArgs),
}

/// Print the IAM policy that exactly this configuration needs
#[derive(Debug, Args)]
#[command(after_help = "\
Names that a configuration does not give with their region or account are completed by --region and --account;
REGION and ACCOUNT_ID stand for what nobody says.

Example: flowgauge iam policy -c flowgauge.toml --account 123456789012 > policy.json")]
struct PolicyArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Region of what the configuration names without one
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Account of what the configuration names without one, 12 digits
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    account: Option<String>,
    /// ARN of a KMS key with which a stream, bucket or queue is encrypted; may be repeated
    #[arg(long, value_name = "ARN", value_parser = key_arn)]
    kms_key: Vec<String>,
    /// Allow what `doctor` does beyond what the job does
    #[arg(long)]
    doctor: bool,
}

fn account(text: &str) -> Result<String, &'static str> {
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_account.then(|| text.to_owned()).ok_or("an account has 12 digits")
}

fn key_arn(text: &str) -> Result<String, &'static str> {
    let mut parts = text.splitn(6, ':');
    let is_key = parts.next() == Some("arn")
        && parts.nth(1) == Some("kms")
        && parts.nth(2).is_some_and(|resource| resource.starts_with("key/"));
    is_key.then(|| text.to_owned()).ok_or("it must be like `arn:aws:kms:REGION:ACCOUNT:key/ID`")
}

/// Runs the command.
pub(crate) fn run(args: &IamArgs) -> Result<(), Failure> {
    let IamCommand::Policy(args) = &args.command;
    let plan = config::load(&args.config).map_err(Failure::usage)?;
    let home = Home { region: args.region.clone(), account: args.account.clone() };
    let extras = Extras { kms_keys: args.kms_key.clone(), doctor: args.doctor };
    let policy = plan.policy(&home, &extras);
    if policy.is_empty() {
        output::write_note("this configuration needs nothing from AWS\n");
        return Ok(());
    }
    let (buckets, homes): (Vec<&str>, Vec<&str>) =
        policy.placeholders().into_iter().partition(|name| *name == BUCKET_PLACEHOLDER);
    if !homes.is_empty() {
        let names = homes.join(" and ");
        output::write_note(&format!(
            "replace {names} in the policy, or say --region and --account\n"
        ));
    }
    if !buckets.is_empty() {
        output::write_note(
            "replace BUCKET in the policy with the bucket that the queue tells of\n",
        );
    }
    let mut text = serde_json::to_string_pretty(&policy.json()).map_err(Failure::running)?;
    text.push('\n');
    output::write_text(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_keys_are_checked() {
        assert!(account("123456789012").is_ok());
        assert!(account("12345678901x").is_err() && account("1").is_err());
        assert!(key_arn("arn:aws:kms:eu-west-1:123456789012:key/1-2").is_ok());
        assert!(key_arn("arn:aws:kms:eu-west-1:123456789012:alias/a").is_err());
        assert!(key_arn("key/1").is_err());
    }
}
