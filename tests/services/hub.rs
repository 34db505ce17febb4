//! A hub on the loopback interface with one model, whose weights break off the first time.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct Hub {
    pub url: String,
    /// What it serves.
    pub folder: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    /// Serves a model of the oracles under a name.
    pub fn start(name: &str, oracle: &str) -> Hub {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracles").join(oracle);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, served, name) = (asked.clone(), folder.clone(), name.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &log, &served, &name);
            }
        });
        Hub { url, folder, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Where the weights break off.
    pub fn half(&self) -> u64 {
        std::fs::metadata(self.folder.join("model.safetensors")).unwrap().len() / 2
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, folder: &Path, name: &str) {
    let mut asked = Asked { path: String::new(), range: None, authorization: None };
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap_or_default();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            asked.path = rest.split(' ').next().unwrap().to_owned();
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
        log.iter().filter(|other| other.path == asked.path).count() - 1
    };
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n").into_bytes()
    };
    let mut answer = Vec::new();
    if asked.path == format!("/api/models/{name}/revision/main") {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let files = files.chain(["pytorch_model.bin".to_owned(), "../escape.json".to_owned()]);
        let siblings: Vec<_> = files.map(|file| serde_json::json!({"rfilename": file})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        answer = head("200 OK", body.len(), "");
        answer.extend(body.as_bytes());
    } else if let Some(file) = asked.path.strip_prefix(&format!("/{name}/resolve/{COMMIT}/"))
        && let Ok(bytes) = std::fs::read(folder.join(file))
    {
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
                let breaks_off = file == "model.safetensors" && before == 0;
                answer.extend(if breaks_off { &bytes[..bytes.len() / 2] } else { &bytes[..] });
            }
        }
    }
    if answer.is_empty() {
        answer = head("404 Not Found", 0, "");
    }
    let _ = stream.write_all(&answer);
}
