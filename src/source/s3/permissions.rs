//! What reading objects needs from IAM.

use crate::iam::{BUCKET_PLACEHOLDER, Home, Statement};

use super::settings::{Intake, S3Settings};

/// The calls of `sqs`.
const RECEIVING: &[&str] =
    &["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"];

impl S3Settings {
    /// The actions that the source makes. A queue doesn't say of which bucket it tells, so a placeholder stands for
    /// that.
    #[must_use]
    pub fn statements(&self, home: &Home) -> Vec<Statement> {
        let region = self.access.region.as_deref();
        match &self.intake {
            Intake::Queue(queue) => {
                let account = queue.url.rsplit('/').nth(1).map(str::to_owned);
                let account = account.filter(|account| is_account(account));
                let home =
                    Home { account: account.or_else(|| home.account.clone()), ..home.clone() };
                let arn = home.arn("sqs", region, queue.name());
                let objects = home.bucket_arn(region, &format!("{BUCKET_PLACEHOLDER}/*"));
                vec![
                    Statement::new("ReceiveMessages", RECEIVING, vec![arn]),
                    Statement::new("ReadObjects", &["s3:GetObject"], vec![objects]),
                ]
            }
            Intake::Listing(listing) => {
                let objects = format!("{}/{}*", listing.bucket, listing.prefix);
                let bucket = home.bucket_arn(region, &listing.bucket);
                vec![
                    Statement::new("ListBuckets", &["s3:ListBucket"], vec![bucket]),
                    Statement::new(
                        "ReadObjects",
                        &["s3:GetObject"],
                        vec![home.bucket_arn(region, &objects)],
                    ),
                ]
            }
        }
    }
}

impl S3Settings {
    /// The services whose encrypted data the source reads with the caller's permission.
    #[must_use]
    pub fn decrypting_services(&self, home: &Home) -> Vec<String> {
        let host = |service| home.service_host(service, self.access.region.as_deref());
        match &self.intake {
            Intake::Queue(_) => vec![host("s3"), host("sqs")],
            Intake::Listing(_) => vec![host("s3")],
        }
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let settings: S3Settings = toml::from_str(text).unwrap();
        let statements = settings.statements(&Home::default());
        let found: Vec<(&str, &str)> =
            statements.iter().map(|one| (one.sid, one.resources[0].as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_intake_needs_its_own() {
        check(
            "queue_url = 'https://sqs.eu-west-3.amazonaws.com/123456789012/q'",
            &[
                ("ReceiveMessages", "arn:aws:sqs:eu-west-3:123456789012:q"),
                ("ReadObjects", "arn:aws:s3:::BUCKET/*"),
            ],
        );
        check(
            "bucket = 'logs'\nprefix = 'AWSLogs/'",
            &[("ListBuckets", "arn:aws:s3:::logs"), ("ReadObjects", "arn:aws:s3:::logs/AWSLogs/*")],
        );
    }
}
