//! What the paths of a command line mean: files, standard input, and objects of S3.

use std::path::PathBuf;
use std::sync::Arc;

use super::failure::Failure;
use super::job::{self, Inputs};
use crate::clock::Clock;
use crate::config::EnginePlan;
use crate::record::FormatChoice;
#[cfg(feature = "s3")]
use crate::source::s3::{ObjectsSource, S3_SCHEME, S3Object, S3Url, discover_objects};
use crate::source::{FileSource, InputIds, STDIN, discover};
use crate::units::UnixSeconds;

/// How a path begins that is none of a file.
#[cfg(not(feature = "s3"))]
const S3_SCHEME: &str = "s3://";

/// What is to be read.
pub(crate) struct Paths {
    files: Vec<PathBuf>,
    #[cfg(feature = "s3")]
    objects: Vec<S3Object>,
}

impl Paths {
    /// What `paths` mean: files first, then standard input, then objects. Objects of days in which nothing from `since`
    /// on and before `until` can be are left out.
    pub(crate) fn find(
        paths: &[String],
        (since, until): (Option<UnixSeconds>, Option<UnixSeconds>),
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let (urls, local): (Vec<&String>, Vec<&String>) =
            paths.iter().partition(|path| path.starts_with(S3_SCHEME));
        let (stdin, named): (Vec<PathBuf>, Vec<PathBuf>) =
            local.into_iter().map(PathBuf::from).partition(|path| path.as_os_str() == STDIN);
        let mut files = discover(&named).map_err(Failure::usage)?;
        files.extend(stdin.into_iter().next());
        Self::with_objects(files, &urls, (since, until), clock)
    }

    #[cfg(feature = "s3")]
    fn with_objects(
        files: Vec<PathBuf>,
        urls: &[&String],
        range: (Option<UnixSeconds>, Option<UnixSeconds>),
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let urls: Result<Vec<S3Url>, _> = urls.iter().map(|url| S3Url::from_text(url)).collect();
        let urls = urls.map_err(Failure::usage)?;
        let access = crate::aws::AwsAccess::default();
        let objects = discover_objects(&urls, &access, range, clock).map_err(Failure::usage)?;
        if files.is_empty() && objects.is_empty() {
            return Err(Failure::usage(anyhow::anyhow!(
                "no object is of a day from `--since` on and before `--until`; leave them out, or name other prefixes"
            )));
        }
        Ok(Self { files, objects })
    }

    #[cfg(not(feature = "s3"))]
    fn with_objects(
        files: Vec<PathBuf>,
        urls: &[&String],
        _range: (Option<UnixSeconds>, Option<UnixSeconds>),
        _clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        match urls.first() {
            None => Ok(Self { files }),
            Some(url) => Err(Failure::usage(anyhow::anyhow!(
                "`{url}` is in S3, which this build leaves out; build with the feature `s3`"
            ))),
        }
    }

    /// How long all of it is together, for progress.
    pub(crate) fn total_bytes(&self) -> u64 {
        let files = self.files.iter().filter_map(|file| file.metadata().ok());
        let bytes = files.map(|metadata| metadata.len()).sum::<u64>();
        #[cfg(feature = "s3")]
        let bytes = bytes + self.objects.iter().map(|object| object.size).sum::<u64>();
        bytes
    }

    /// Sources over all of it.
    #[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "files need no clock"))]
    pub(crate) fn inputs(
        self,
        format: &FormatChoice,
        engine: &EnginePlan,
        clock: &Arc<dyn Clock>,
    ) -> Inputs {
        let (ids, limits) = (InputIds::default(), job::limits(engine));
        let sources = match self.files.as_slice() {
            [] => Vec::new(),
            files => FileSource::split(files, format, &limits, engine.thread_count().get(), &ids),
        };
        let inputs = Inputs::bounded(sources, self.files.len());
        #[cfg(feature = "s3")]
        let inputs = if self.objects.is_empty() {
            inputs
        } else {
            let (count, read_as) = (self.objects.len(), (format.clone(), limits));
            let access = crate::aws::AwsAccess::default();
            let source = ObjectsSource::new(self.objects, access, read_as, &ids, Arc::clone(clock));
            inputs.and(Box::new(source), count)
        };
        inputs
    }
}
