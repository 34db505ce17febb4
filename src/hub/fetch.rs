//! Bringing a model from the hub into the cache: only the files a model is made of, each resumed where it broke off.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Error, Result};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};

use super::cache::{Cache, DESCRIPTIONS, shards};
use super::content::Content;
use super::origin::{Origin, leads_to};
use super::{ModelName, endpoint, token};

/// Number of retries of a request while no bytes arrive.
const RETRIES: u32 = 4;
/// Number of retries of a file whose content is wrong.
const ATTEMPTS: u32 = 1;
/// Bytes that a try has to bring so that the failures before it no longer count.
const PROGRESS: u64 = 1 << 20;
/// Less than this in [`WINDOW`] is no progress either.
const SLOWEST: u64 = 64 << 10;
const WINDOW: Duration = Duration::from_secs(120);
/// Longest time for the description of a repository.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most redirects that a request follows.
const MOVES: u32 = 10;
/// The most files that describe a model.
const MOST: usize = 200;
const INDEX: &str = "model.safetensors.index.json";
/// The longest description or index that is read.
const MAX_JSON: u64 = 64 << 20;

/// Called while a file arrives: its name, the bytes that are there, and all of them.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// Fetches a model into the cache. It appears under its revision when all of it is there.
///
/// # Errors
/// [`Error::Unreachable`] when the hub does not answer, [`Error::Pipeline`] when it has no such model or wants a token.
pub fn fetch(cache: &Cache, name: &ModelName, progress: Progress<'_>) -> Result<()> {
    let hub = Hub::new()?;
    let model = cache.of(name);
    std::fs::create_dir_all(model.join("blobs")).map_err(Error::io(&model))?;
    // One process at a time; the lock goes with it.
    let lock = model.join(".halftone.lock");
    let lock = File::create(&lock).and_then(|file| file.lock().map(|()| file)).map_err(Error::io(&lock))?;
    if cache.find(name).is_some() {
        return Ok(());
    }
    let about = hub.json(name, &format!("{}/api/models/{}/revision/{}", hub.endpoint, name.id, name.revision))?;
    let commit = about.get("sha").and_then(Value::as_str).filter(|commit| is_word(commit));
    let commit = commit.ok_or_else(|| hub.strange("names no commit"))?.to_owned();
    let siblings = about.get("siblings").and_then(Value::as_array).into_iter().flatten();
    let files: Vec<&str> = siblings
        .filter_map(|file| file.get("rfilename").and_then(Value::as_str))
        .filter(|file| is_safe(file))
        .collect();
    let snapshot = model.join("snapshots").join(&commit);
    let mut get = |file: &str| -> Result<()> {
        if !snapshot.join(file).is_file() {
            hub.file(name, &commit, file, &model, &snapshot, progress)?;
        }
        Ok(())
    };
    // Weights come last: where they are, everything is.
    let descriptions: Vec<&&str> = files.iter().filter(|file| is_description(file)).collect();
    if descriptions.len() > MOST {
        return Err(hub.strange(&format!("lists {} descriptions of `{name}`", descriptions.len())));
    }
    for file in descriptions {
        get(file)?;
    }
    let weights = if files.contains(&INDEX) {
        let path = snapshot.join(INDEX);
        let listed = shards(&std::fs::read(&path).map_err(Error::io(&path))?);
        listed
            .filter(|files| files.iter().all(|file| is_safe(file)))
            .ok_or_else(|| hub.strange("sent a broken index"))?
    } else if files.contains(&"model.safetensors") {
        vec!["model.safetensors".to_owned()]
    } else {
        return Err(Error::Pipeline(format!(
            "`{name}` has no `model.safetensors`; models are read from safetensors in the Hugging Face format"
        )));
    };
    for file in &weights {
        get(file)?;
    }
    if let Some(missing) = DESCRIPTIONS.iter().find(|file| !snapshot.join(file).is_file()) {
        return Err(Error::Pipeline(format!("`{name}` is no model that can be read: it has no {missing}")));
    }
    if name.revision != commit {
        kit::commit::commit_bytes(&model.join("refs").join(&name.revision), commit.as_bytes())?;
    }
    drop(lock);
    Ok(())
}

/// Configuration, tokenizer, template and the modules of sentence encoders; small files at the top or in `1_Pooling`.
fn is_description(file: &str) -> bool {
    let (folder, last) = file.rsplit_once('/').unwrap_or(("", file));
    let module = folder.split_once('_').is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let wanted = ["json", "jinja", "txt", "model"].iter().any(|kind| last.ends_with(&format!(".{kind}")));
    (folder.is_empty() && wanted) || (module && (wanted || last == "model.safetensors"))
}

fn is_word(text: &str) -> bool {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.chars().all(good)
}

/// True where a file's name stays inside its folder.
fn is_safe(file: &str) -> bool {
    file.split('/').all(is_word)
}

struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A failure that may pass, or one that will not.
enum Failed {
    Again(String),
    Final(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Final(error)
    }
}

impl Hub {
    /// # Errors
    /// When the file with the token is none.
    fn new() -> Result<Hub> {
        let endpoint = endpoint();
        let mut config = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            // Followed here, so that the token goes to the hub alone.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("halftone/", env!("CARGO_PKG_VERSION")));
        if ["http://127.", "http://localhost", "http://[::1]"].iter().any(|start| endpoint.starts_with(start)) {
            config = config.proxy(None);
        }
        let token = token()?;
        token.iter().for_each(|token| kit::keep_secret(token, "[the hub token]"));
        Ok(Hub { agent: config.build().new_agent(), endpoint, token })
    }

    fn strange(&self, what: &str) -> Error {
        Error::Unreachable(format!("{} {what}; is it a Hugging Face hub?", self.endpoint))
    }

    /// The hub's identification of a file's content. Where the hub redirects for the bytes, only the hub knows it.
    fn content(&self, name: &ModelName, url: &str) -> Result<Option<Content>, Failed> {
        let tag_of = |headers: &HeaderMap| {
            let header = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
            header("x-linked-etag").or_else(|| header("etag")).map(str::to_owned)
        };
        // A repository under another name; what leads to another host is the file itself.
        let within = |headers: &HeaderMap, to: &str| tag_of(headers).is_none() && self.is_own(to);
        let response = self
            .answered(name, url, within, |url| self.agent.head(url).config().timeout_global(Some(PATIENCE)).build())?;
        Ok(tag_of(response.headers()).as_deref().and_then(Content::of_tag))
    }

    fn request(
        &self,
        name: &ModelName,
        url: &str,
        from: u64,
        within: Option<Duration>,
    ) -> Result<Response<ureq::Body>, Failed> {
        self.answered(
            name,
            url,
            |_, _| true,
            |url| {
                let request = self.agent.get(url).config().timeout_global(within).build();
                if from > 0 { request.header("range", format!("bytes={from}-")) } else { request }
            },
        )
    }

    /// True where the token may be sent there: to the scheme, the host and the port of the hub.
    fn is_own(&self, url: &str) -> bool {
        Origin::of(url).is_some_and(|origin| Some(origin) == Origin::of(&self.endpoint))
    }

    /// Sends a request to where it leads in the end. `follow` says whether to go on to another address.
    fn answered(
        &self,
        name: &ModelName,
        url: &str,
        follow: impl Fn(&HeaderMap, &str) -> bool,
        request: impl Fn(&str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<Response<ureq::Body>, Failed> {
        let mut url = url.to_owned();
        for _ in 0..=MOVES {
            let mut request = request(&url);
            if let Some(token) = self.token.as_ref().filter(|_| self.is_own(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Failed::Again(error.to_string()))?;
            let status = response.status().as_u16();
            let to = response.headers().get("location").and_then(|to| leads_to(&url, to.to_str().ok()?));
            match to {
                Some(to) if (300..400).contains(&status) && follow(response.headers(), &to) => url = to,
                _ => return self.accepted(name, response),
            }
        }
        Err(Failed::Final(self.strange("leads from one address to another without end")))
    }

    fn accepted(&self, name: &ModelName, response: Response<ureq::Body>) -> Result<Response<ureq::Body>, Failed> {
        let final_error = |text: String| Err(Failed::Final(Error::Pipeline(text)));
        match response.status().as_u16() {
            200..=399 | 416 => Ok(response),
            401 | 403 => final_error(format!(
                "{} does not give `{name}`: it does not exist, or it wants {}",
                self.endpoint,
                if self.token.is_some() { "a token with access to it" } else { "a token in HF_TOKEN" }
            )),
            404 => final_error(format!("{} has no model `{name}`; for a folder write `./{}`", self.endpoint, name.id)),
            status => Err(Failed::Again(format!("status {status}"))),
        }
    }

    /// Tries until it works or nothing more comes of it. `work` says how many bytes there were before it failed: only
    /// what goes beyond all tries before counts as progress.
    fn persist<T>(&self, what: &str, mut work: impl FnMut(&mut u64) -> Result<T, Failed>) -> Result<T> {
        let (mut failures, mut furthest) = (0, 0);
        loop {
            let mut have = 0;
            match work(&mut have) {
                Ok(value) => return Ok(value),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Again(why)) => {
                    failures = if have >= furthest + PROGRESS { 1 } else { failures + 1 };
                    furthest = furthest.max(have);
                    if failures > RETRIES {
                        let text = format!("{what} does not arrive from {}: {why}; run again to go on", self.endpoint);
                        return Err(Error::Unreachable(text));
                    }
                    std::thread::sleep(Duration::from_millis(250 << failures));
                }
            }
        }
    }

    fn json(&self, name: &ModelName, url: &str) -> Result<Value> {
        self.persist(&format!("`{name}`"), |_| {
            let mut response = self.request(name, url, 0, Some(PATIENCE))?;
            let mut text = Vec::new();
            let read = response.body_mut().as_reader().take(MAX_JSON + 1).read_to_end(&mut text);
            read.map_err(|error| Failed::Again(error.to_string()))?;
            if text.len() as u64 > MAX_JSON {
                return Err(Failed::Final(self.strange(&format!("sent a description of more than {MAX_JSON} bytes"))));
            }
            serde_json::from_slice(&text).map_err(|_| Failed::Final(self.strange("did not answer in JSON")))
        })
    }

    /// Fetches a file into `blobs` and links it into the snapshot.
    fn file(
        &self,
        name: &ModelName,
        commit: &str,
        file: &str,
        model: &Path,
        snapshot: &Path,
        progress: Progress<'_>,
    ) -> Result<()> {
        let url = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, name.id);
        // Content is fixed by commit and name, so a part under this name is of this file.
        let blob_name = kit::id_of(&[&name.id, commit, file]);
        let (blob, part) = (model.join("blobs").join(&blob_name), model.join(format!("blobs/{blob_name}.incomplete")));
        if !blob.is_file() {
            let what = format!("`{name}` {file}");
            let content = self.persist(&what, |_| self.content(name, &url))?;
            for attempt in 0.. {
                self.persist(&what, |have| self.bytes(name, &url, file, &part, have, progress))?;
                match &content {
                    Some(content) if !content.is_of(&part)? => {
                        std::fs::remove_file(&part).map_err(Error::io(&part))?;
                        if attempt == ATTEMPTS {
                            let text = format!("{what} does not arrive whole from {}", self.endpoint);
                            return Err(Error::Unreachable(format!("{text}: its content is not the one of its tag")));
                        }
                    }
                    _ => break,
                }
            }
            std::fs::rename(&part, &blob).map_err(Error::io(&blob))?;
            kit::commit::sync_folder(&model.join("blobs"))?;
        }
        let link = snapshot.join(file);
        let folder = link.parent().expect("a file of a snapshot lies in a folder");
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let up = "../".repeat(2 + file.matches('/').count());
        match std::os::unix::fs::symlink(format!("{up}blobs/{blob_name}"), &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io(&link)(error)),
            _ => kit::commit::sync_folder(folder),
        }
    }

    /// Brings what is missing of a file.
    fn bytes(
        &self,
        name: &ModelName,
        url: &str,
        file: &str,
        part: &Path,
        have: &mut u64,
        progress: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<(), Failed> {
        let failed = |error| Failed::Final(Error::io(part)(error));
        let mut out = OpenOptions::new().append(true).create(true).open(part).map_err(failed)?;
        *have = out.metadata().map_err(failed)?.len();
        let mut response = self.request(name, url, *have, None)?;
        let header = |key: &str| response.headers().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // `bytes 100-199/200`
        let range = header("content-range");
        let whole = range.as_deref().and_then(|range| range.rsplit_once('/')).and_then(|(_, all)| all.parse().ok());
        let begins = format!("bytes {have}-");
        let size: Option<u64> = match response.status().as_u16() {
            206 if range.as_deref().is_some_and(|range| range.starts_with(&begins)) => whole,
            416 if whole == Some(*have) => return out.sync_all().map_err(failed),
            416 | 206 => {
                out.set_len(0).map_err(failed)?;
                return Err(Failed::Again("it cannot be resumed and begins again".to_owned()));
            }
            _ => {
                // The server gives no parts.
                out.set_len(0).map_err(failed)?;
                *have = 0;
                header("content-length").and_then(|length| length.parse().ok())
            }
        };
        // Without end or said end it would fill the disk.
        let weights = file.ends_with(".safetensors");
        let most = match size {
            Some(size) if weights || size <= MAX_JSON => size,
            None if !weights => MAX_JSON,
            Some(size) => {
                return Err(Failed::Final(
                    self.strange(&format!("has {size} bytes of {file}, at most {MAX_JSON} are read")),
                ));
            }
            None => return Err(Failed::Final(self.strange(&format!("does not say how long {file} is")))),
        };
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 18];
        let (mut since, mut arrived) = (Instant::now(), 0);
        loop {
            progress(file, *have, size.unwrap_or(*have));
            let read = body.read(&mut buffer).map_err(|error| Failed::Again(error.to_string()))?;
            if read == 0 {
                break;
            }
            if *have + read as u64 > most {
                return Err(Failed::Final(
                    self.strange(&format!("sends more of {file} than the {most} bytes it may have")),
                ));
            }
            out.write_all(&buffer[..read]).map_err(failed)?;
            *have += read as u64;
            arrived += read as u64;
            if since.elapsed() > WINDOW {
                if arrived < SLOWEST {
                    return Err(Failed::Again(format!("{arrived} bytes came in {} seconds", WINDOW.as_secs())));
                }
                (since, arrived) = (Instant::now(), 0);
            }
        }
        match size {
            Some(size) if *have != size => Err(Failed::Again(format!("it broke off after {have} of {size} bytes"))),
            _ => out.sync_all().map_err(failed),
        }
    }
}
