//! A shared store in a bucket of S3, Google Cloud Storage or Azure.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use kit::{Error, Interrupt, Result};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use super::address::{Address, Scheme};
use super::http::Connector;
use crate::store::{Created, Objects};

/// Bytes of a part of an object: what travels in one request.
const PART: u64 = 8 << 20;
/// The most parts of an upload; the services take ten thousand.
const MOST_PARTS: u64 = 9000;
/// Parts of one object that travel at once.
const AT_ONCE: usize = 4;
/// Time between two looks at the interrupt.
const POLL: Duration = Duration::from_millis(100);
/// The longest text of an error.
const LONGEST: usize = 400;

/// The bucket.
pub struct Bucket {
    address: Address,
    name: String,
    objects: Box<dyn ObjectStore>,
    runtime: Option<Runtime>,
    interrupt: Interrupt,
}

impl Bucket {
    /// The bucket at an address, with the credentials of the environment.
    ///
    /// # Errors
    /// When the environment lacks what it takes.
    pub fn new(address: &Address, interrupt: Interrupt) -> Result<Bucket> {
        let (bucket, retry) = (address.bucket.as_str(), retries());
        let built: object_store::Result<Box<dyn ObjectStore>> = match address.scheme {
            Scheme::Gs => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
                builder.with_retry(retry).with_http_connector(Connector).build().map(|it| Box::new(it) as _)
            }
            Scheme::Az => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
                builder.with_retry(retry).with_http_connector(Connector).build().map(|it| Box::new(it) as _)
            }
            Scheme::S3 | Scheme::File => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                builder.with_retry(retry).with_http_connector(Connector).build().map(|it| Box::new(it) as _)
            }
        };
        let objects = built.map_err(|error| {
            Error::Pipeline(format!("{address} cannot be opened: {}; {}", said(&error), keys(address.scheme)))
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = Some(runtime.map_err(Error::io("threads to transfer with"))?);
        Ok(Bucket { address: address.clone(), name: address.to_string(), objects, runtime, interrupt })
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}/{key}", self.address.prefix))
    }

    /// Does asynchronous work to its end; an interrupt leaves it.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("it is taken when it is dropped");
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                self.interrupt.check()?;
                if let Ok(done) = tokio::time::timeout(POLL, &mut work).await {
                    return done;
                }
            }
        })
    }

    fn failed(&self, error: &StoreError) -> Error {
        let (name, said) = (&self.name, said(error));
        let text = match error {
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                return Error::Pipeline(format!("{name} refuses: {said}; {}", keys(self.address.scheme)));
            }
            StoreError::NotFound { .. } => {
                return Error::Pipeline(format!("there is no bucket `{}`: {said}", self.address.bucket));
            }
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                return Error::Pipeline(format!("{name} cannot be a shared store: {said}"));
            }
            _ => format!("{name} cannot be reached: {said}; run again when it can"),
        };
        Error::Unreachable(text)
    }

    /// None where there is no such object; where there is no such bucket an error.
    fn there<T>(&self, answered: object_store::Result<T>) -> Result<Option<T>> {
        match answered {
            Ok(value) => Ok(Some(value)),
            Err(error @ StoreError::NotFound { .. }) => {
                let text = error_chain(&error);
                let bucket = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
                if bucket.iter().any(|word| text.contains(word)) { Err(self.failed(&error)) } else { Ok(None) }
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn upload(&self, key: &Key, file: &mut File, bytes: u64, path: &Path) -> Result<()> {
        let part = PART.max(bytes.div_ceil(MOST_PARTS));
        let mut piece = || -> Result<PutPayload> {
            let mut piece = Vec::new();
            file.take(part).read_to_end(&mut piece).map_err(Error::io(path))?;
            Ok(piece.into())
        };
        if bytes <= part {
            return self.objects.put(key, piece()?).await.map(drop).map_err(|error| self.failed(&error));
        }
        let mut upload = self.objects.put_multipart(key).await.map_err(|error| self.failed(&error))?;
        let sent = async {
            let mut flying = FuturesUnordered::new();
            for _ in 0..bytes.div_ceil(part) {
                flying.push(upload.put_part(piece()?));
                if flying.len() == AT_ONCE {
                    flying.next().await.transpose().map_err(|error| self.failed(&error))?;
                }
            }
            while let Some(sent) = flying.next().await {
                sent.map_err(|error| self.failed(&error))?;
            }
            Ok(())
        };
        if let Err(error) = sent.await {
            // What was sent is no object; where it stays, it is the bucket's to remove.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map(drop).map_err(|error| self.failed(&error))
    }
}

impl Drop for Bucket {
    /// Requests that an interrupt left are not waited for.
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Objects for Bucket {
    fn address(&self) -> &str {
        &self.name
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.wait(async {
            let Some(got) = self.there(self.objects.get(&self.key(key)).await)? else { return Ok(None) };
            let bytes = got.bytes().await.map_err(|error| self.failed(&error))?;
            Ok(Some(bytes.to_vec()))
        })
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        self.wait(async { Ok(self.there(self.objects.head(&self.key(key)).await)?.map(|about| about.size)) })
    }

    fn fetch(&self, key: &str, bytes: u64, file: &mut File) -> Result<()> {
        let key = self.key(key);
        self.wait(async {
            let ranges = (0..bytes.div_ceil(PART)).map(|part| part * PART..bytes.min((part + 1) * PART));
            let mut parts = stream::iter(ranges).map(|range| self.objects.get_range(&key, range)).buffered(AT_ONCE);
            while let Some(part) = parts.next().await {
                let part = part.map_err(|error| self.failed(&error))?;
                file.write_all(&part).map_err(Error::io("a fetched file"))?;
            }
            Ok(())
        })
    }

    fn put(&self, key: &str, from: &Path) -> Result<()> {
        let mut file = File::open(from).map_err(Error::io(from))?;
        let bytes = file.metadata().map_err(Error::io(from))?.len();
        self.wait(self.upload(&self.key(key), &mut file, bytes, from))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<Created> {
        let (key, bytes) = (self.key(key), bytes.to_vec());
        self.wait(async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.objects.put_opts(&key, bytes.into(), options).await {
                Ok(_) => Ok(Created::New),
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(Created::Taken),
                Err(error) if may_have_been_done(&error) => Ok(Created::Unsure(said(&error))),
                Err(error) => Err(self.failed(&error)),
            }
        })
    }
}

/// A few attempts within a minute: longer than that nobody waits for word that a store is away.
fn retries() -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(200), Duration::from_secs(5));
    RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
        max_retries: 4,
        retry_timeout: Duration::from_secs(60),
    }
}

/// True where a request may have been done although no answer says so.
fn may_have_been_done(error: &StoreError) -> bool {
    let refused = matches!(
        error,
        StoreError::NotFound { .. } | StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }
    );
    if refused {
        return false;
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return error.kind() != HttpErrorKind::Connect;
        }
        next = error.source();
    }
    // A server that fails may have done it first.
    error_chain(error).contains("Server returned") || matches!(error, StoreError::Generic { .. })
}

/// Where the keys of a service come from.
fn keys(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 | Scheme::File => {
            "keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the region from AWS_REGION, another service's \
             address from AWS_ENDPOINT_URL"
        }
        Scheme::Gs => "keys come from the file that GOOGLE_APPLICATION_CREDENTIALS names",
        Scheme::Az => {
            "keys come from AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        }
    }
}

/// An error in one line that is not too long.
fn said(error: &StoreError) -> String {
    let text = error_chain(error).split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// An error with its causes, each that says something new.
fn error_chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_put_is_no_put_of_unknown_end() {
        let said = || Box::from("Server returned non-2xx status code: 403 Forbidden");
        let path = || "entries/a.json".to_owned();
        assert!(!may_have_been_done(&StoreError::PermissionDenied { path: path(), source: said() }));
        assert!(!may_have_been_done(&StoreError::Unauthenticated { path: path(), source: said() }));
        // No such bucket.
        assert!(!may_have_been_done(&StoreError::NotFound { path: path(), source: said() }));
        let failed = || Box::from("Server returned error response: 503 Slow Down");
        assert!(may_have_been_done(&StoreError::Generic { store: "S3", source: failed() }));
        let away = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("refused"));
        assert!(!may_have_been_done(&StoreError::Generic { store: "S3", source: Box::new(away) }));
        let broken = HttpError::new(HttpErrorKind::Interrupted, std::io::Error::other("reset"));
        assert!(may_have_been_done(&StoreError::Generic { store: "S3", source: Box::new(broken) }));
    }
}
