//! A hub on the loopback interface with one model, whose weights break off the first time, and that identifies the
//! content of its files as the Hugging Face hub does.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET`, or `HEAD` for the hub's headers of a file.
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct Hub {
    pub url: String,
    /// The folder that it serves.
    pub folder: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    faults: Arc<Mutex<Faults>>,
}

/// Faults that the server makes.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// The file of the list that is not there.
    missing: Option<String>,
    /// Number of further responses in which the weights have a wrong byte.
    wrong: usize,
    /// The file that never ends: `description`, a file of the list, or `weights`, which break off at the half each
    /// time.
    endless: Option<String>,
    /// Other address of the bytes of the weights.
    elsewhere: Option<String>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    /// Serves a model of the oracles under a name.
    pub fn start(name: &str, oracle: &str) -> Hub {
        let folder = harness::oracle(oracle);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let faults = Arc::new(Mutex::new(Faults::default()));
        let (log, served, name, wrong) = (asked.clone(), folder.clone(), name.to_owned(), faults.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &log, &served, &name, &wrong);
            }
        });
        Hub { url, folder, asked, faults }
    }

    /// Leaves a file out of the list.
    pub fn lacks(&self, file: &str) {
        self.faults.lock().unwrap().missing = Some(file.to_owned());
    }

    /// Sends a wrong byte in the weights, so many times.
    pub fn damages(&self, times: usize) {
        self.faults.lock().unwrap().wrong = times;
    }

    /// Sends `description`, a file, or `weights` without end; weights break off at the half each time.
    pub fn never_ends(&self, what: &str) {
        self.faults.lock().unwrap().endless = Some(what.to_owned());
    }

    /// Leads to another address for the bytes of the weights.
    pub fn leads_to(&self, url: &str) {
        self.faults.lock().unwrap().elsewhere = Some(url.to_owned());
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Place at which the weights break off.
    pub fn half(&self) -> u64 {
        std::fs::metadata(self.folder.join("model.safetensors")).unwrap().len() / 2
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, folder: &Path, name: &str, faults: &Mutex<Faults>) {
    let mut asked = Asked { method: String::new(), path: String::new(), range: None, authorization: None };
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap_or_default();
        if line.is_empty() {
            break;
        }
        if asked.path.is_empty() {
            let words: Vec<&str> = line.split(' ').collect();
            (asked.method, asked.path) = (words[0].to_owned(), words[1].to_owned());
        } else if let Some((key, value)) = line.split_once(": ") {
            match key.to_ascii_lowercase().as_str() {
                "range" => asked.range = Some(value.to_owned()),
                "authorization" => asked.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        let same = |other: &&Asked| other.path == asked.path && other.method == asked.method;
        log.iter().filter(same).count() - 1
    };
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n").into_bytes()
    };
    let endless = faults.lock().unwrap().endless.clone().unwrap_or_default();
    let mut without_end = |begin: &str| {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(format!("{head}{begin}").as_bytes());
        let spaces = vec![b' '; 1 << 20];
        // Until the other side has had enough.
        while stream.write_all(&spaces).is_ok() {}
    };
    if endless == "description" && asked.path.starts_with("/api/models/") {
        return without_end("{");
    }
    if asked.method == "GET" && asked.path.ends_with(&format!("/{endless}")) && !endless.is_empty() {
        return without_end("{");
    }
    let mut answer = Vec::new();
    if asked.path == format!("/api/models/{name}/revision/main") {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let files = files.chain(["pytorch_model.bin".to_owned(), "../escape.json".to_owned()]);
        let missing = faults.lock().unwrap().missing.clone();
        let files = files.filter(|file| Some(file) != missing.as_ref());
        let siblings: Vec<_> = files.map(|file| serde_json::json!({"rfilename": file})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        answer = head("200 OK", body.len(), "");
        answer.extend(body.as_bytes());
    } else if let Some(file) = asked.path.strip_prefix(&format!("/{name}/resolve/{COMMIT}/"))
        && let Ok(mut bytes) = std::fs::read(folder.join(file))
    {
        let weights = file == "model.safetensors";
        if asked.method == "HEAD" {
            // Large files lie elsewhere, and their tag is the SHA-256; that of small ones is git's.
            let hex = |digest: ring::digest::Digest| -> String {
                digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
            };
            let answer = if weights {
                let tag = hex(ring::digest::digest(&ring::digest::SHA256, &bytes));
                let more =
                    format!("location: http://127.0.0.1:1/elsewhere\r\nx-linked-etag: \"{tag}\"\r\netag: \"x\"\r\n");
                head("302 Found", 0, &more)
            } else {
                let blob = [format!("blob {}\0", bytes.len()).as_bytes(), &bytes].concat();
                let tag = hex(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &blob));
                head("200 OK", 0, &format!("etag: \"{tag}\"\r\n"))
            };
            let _ = stream.write_all(&answer);
            return;
        }
        if let Some(url) = faults.lock().unwrap().elsewhere.clone().filter(|_| weights) {
            let more = format!("location: {url}{}\r\n", asked.path);
            let _ = stream.write_all(&head("302 Found", 0, &more));
            return;
        }
        if endless == "weights" && weights {
            // No parts, and never more than the half.
            answer = head("200 OK", bytes.len(), "");
            answer.extend(&bytes[..bytes.len() / 2]);
            let _ = stream.write_all(&answer);
            return;
        }
        if weights && faults.lock().unwrap().wrong > 0 {
            faults.lock().unwrap().wrong -= 1;
            bytes[99] ^= 1;
        }
        let from = asked
            .range
            .as_ref()
            .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
        match from {
            Some(from) => {
                let range = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                answer = head("206 Partial Content", bytes.len() - from, &range);
                answer.extend(&bytes[from..]);
            }
            None => {
                answer = head("200 OK", bytes.len(), "");
                let breaks_off = weights && before == 0;
                answer.extend(if breaks_off { &bytes[..bytes.len() / 2] } else { &bytes[..] });
            }
        }
    }
    if answer.is_empty() {
        answer = head("404 Not Found", 0, "");
    }
    let _ = stream.write_all(&answer);
}
