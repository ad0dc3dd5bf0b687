//! Where snapshots are copied to: the keys of `[engine.checkpoint]` beside `interval`.

use std::fmt;
use std::time::Duration;

use crate::iam::{Home, Statement};

use super::engine::Limits;
use super::reader::{TableReader, Text};

/// What the bucket's URL looks like.
const URL_FORM: &str = "`s3://BUCKET/PREFIX`";

/// The calls of `checkpoint::remote` on objects.
const KEEPING: &[&str] =
    &["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"];

/// Longest prefix, in bytes; S3 takes keys of 1,024.
const PREFIX_BYTES_MAX: usize = 900;

/// A bucket with a prefix, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlan {
    /// The bucket.
    pub bucket: String,
    /// Before the names of all objects, without `/` at its ends; this job's alone.
    pub prefix: String,
    /// A region; else what the AWS chain finds.
    pub region: Option<String>,
    /// Another endpoint than AWS's.
    pub endpoint: Option<String>,
    /// A profile; else the standard chain of credentials.
    pub profile: Option<String>,
    /// After so long without a sign of life its owner counts as gone.
    pub takeover_after: Duration,
}

impl RemotePlan {
    /// Of [`Self::takeover_after`].
    pub const TAKEOVER_AFTER: Limits<Duration> = Limits {
        default: Duration::from_secs(30),
        min: Duration::from_secs(1),
        max: Duration::from_mins(10),
    };

    /// Takes every key; `None` if nothing is to be copied.
    pub(super) fn read(table: &mut TableReader<'_>, has_state_dir: bool) -> Option<Self> {
        let url = table.text("remote");
        let [region, profile] = ["region", "profile"].map(|key| table.text(key));
        let endpoint = table.text("endpoint").and_then(|text| endpoint(table, text));
        let takeover_after = table.duration("takeover_after", &Self::TAKEOVER_AFTER);
        let Some(url) = url else {
            if let Some(text) = [&region, &profile].into_iter().flatten().next() {
                let path = table.path_of("remote");
                let message = format!("this is of no use without `{path}`; add it, or remove this");
                table.wrong(text.span.clone(), message);
            }
            return None;
        };
        if !has_state_dir {
            table.wrong(
                url.span.clone(),
                "snapshots are copied from `engine.state_dir`, which is not set; name a directory, which may be empty at each start"
                    .to_owned(),
            );
        }
        if !cfg!(feature = "s3") {
            let message = "this build leaves S3 out; build with the feature `s3`".to_owned();
            table.wrong(url.span.clone(), message);
        }
        let Some((bucket, prefix)) = parse(&url.content) else {
            let path = table.path_of("remote");
            let message = format!("field `{path}` is {}; it must be {URL_FORM}", url.shown);
            table.wrong(url.span, message);
            return None;
        };
        let content = |text: Option<Text>| text.map(|text| text.content);
        let (region, profile) = (content(region), content(profile));
        Some(Self { bucket, prefix, region, endpoint, profile, takeover_after })
    }
}

impl RemotePlan {
    /// What copying and restoring snapshots need from IAM, on the prefix alone.
    #[must_use]
    pub fn statements(&self, home: &Home) -> Vec<Statement> {
        let region = self.region.as_deref();
        let objects = home.bucket_arn(region, &format!("{}/{}/*", self.bucket, self.prefix));
        let bucket = home.bucket_arn(region, &self.bucket);
        // Without a condition on the prefix: that would make an absent object look like a denied one.
        vec![
            Statement::new("KeepSnapshots", KEEPING, vec![objects]),
            Statement::new("ListSnapshots", &["s3:ListBucket"], vec![bucket]),
        ]
    }

    /// S3, as conditions name it.
    #[must_use]
    pub fn service_host(&self, home: &Home) -> String {
        home.service_host("s3", self.region.as_deref())
    }
}

/// `s3://bucket/prefix`.
impl fmt::Display for RemotePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

fn parse(url: &str) -> Option<(String, String)> {
    let (bucket, prefix) = url.strip_prefix("s3://")?.split_once('/')?;
    let prefix = prefix.trim_end_matches('/');
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_prefix = !prefix.is_empty()
        && prefix.len() <= PREFIX_BYTES_MAX
        && prefix.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    (is_bucket && is_prefix).then(|| (bucket.to_owned(), prefix.to_owned()))
}

fn endpoint(table: &mut TableReader<'_>, text: Text) -> Option<String> {
    let Text { content, span, shown } = text;
    if content.starts_with("http://") || content.starts_with("https://") {
        return Some(content);
    }
    let path = table.path_of("endpoint");
    let form = "it must be a URL with `http://` or `https://`";
    table.wrong(span, format!("field `{path}` is {shown}; {form}"));
    None
}

#[cfg(all(test, feature = "s3"))]
mod tests {
    use super::super::file::read;

    fn check(keys: &str, expected: Result<Option<&str>, &str>) {
        let text = format!(
            "[engine]\nstate_dir = '/s'\n[engine.checkpoint]\n{keys}\n[sources.a]\ntype = 'demo'\n"
        );
        let plan = read("f", &text, &|_| None).into_plan();
        let found = plan
            .map(|plan| plan.engine.checkpoint.remote.map(|remote| remote.to_string()))
            .map_err(|error| error.to_string());
        assert_eq!(found, expected.map(|url| url.map(str::to_owned)).map_err(str::to_owned));
    }

    #[test]
    fn a_remote_is_a_bucket_and_a_prefix() {
        check("", Ok(None));
        check("remote = 's3://my-bucket/flow/prod/'", Ok(Some("s3://my-bucket/flow/prod")));
        for url in
            ["s3://my-bucket", "s3://my-bucket/", "http://x/y", "s3://my-bucket/a//b", "s3://x/y"]
        {
            let fault = format!(
                "f:4:1: field `engine.checkpoint.remote` is `{url}`; it must be `s3://BUCKET/PREFIX`"
            );
            check(&format!("remote = '{url}'"), Err(&fault));
        }
    }

    #[test]
    fn what_belongs_to_a_remote_needs_one() {
        check(
            "region = 'eu-west-1'",
            Err(
                "f:4:1: this is of no use without `engine.checkpoint.remote`; add it, or remove this",
            ),
        );
        check(
            "remote = 's3://my-bucket/x'\nendpoint = 'vpce-1'\ntakeover_after = '1h'",
            Err(
                "f:5:1: field `engine.checkpoint.endpoint` is `vpce-1`; it must be a URL with `http://` or `https://`\n\
                 f:6:1: field `engine.checkpoint.takeover_after` is `1h`; it must be 1s to 10m; remove the line to use 30s",
            ),
        );
    }

    #[test]
    fn a_remote_needs_a_directory() {
        let text = "[engine.checkpoint]\nremote = 's3://my-bucket/x'\n[sources.a]\ntype = 'demo'\n";
        let error = read("f", text, &|_| None).into_plan().unwrap_err().to_string();
        assert!(error.contains("`engine.state_dir`, which is not set"), "{error}");
    }
}
