//! An OpenAI-compatible endpoint on the loopback interface that misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Treatment of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Treatment {
    /// The likeliest tokens with their log-probs.
    Answer(Vec<(String, f64)>),
    /// A whole reply with status 200, which is paid for.
    Reply(Value),
    /// A status with a body, and a `Retry-After` where there is one.
    Status(u16, String, Option<String>),
    /// A body with status 200 that is sent as it is.
    Body(Vec<u8>),
    /// The same under a `Content-Encoding`.
    Packed(&'static str, Vec<u8>),
    /// The connection ends without an answer.
    Reset,
    /// The connection ends in the middle of a good answer.
    BreakOff,
    /// The answer begins and goes on only after this time.
    Slow(Duration),
    /// Nothing comes while the server lives.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The content of its first message; of embeddings the texts with `|` between them.
    pub question: String,
    /// The whole request.
    pub body: Value,
    /// The header of that name.
    pub authorization: Option<String>,
    /// The part of the address behind the host.
    pub path: String,
    /// All headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// It finds out what the endpoint takes and asks nothing.
    pub probe: bool,
    /// Number of earlier requests with this question.
    pub before: usize,
    /// The treatment it got.
    pub treatment: Treatment,
    /// Log-probs were sent whole with status 200: they are paid for.
    pub billed: bool,
}

/// The question of a request that finds out what the endpoint takes.
pub const PROBE: &str = "Answer with the letter A.";

type Behaviour = dyn Fn(&str, &Value, usize, &[Asked]) -> Treatment + Send + Sync;

/// An endpoint that runs until it is dropped.
pub struct Server {
    /// The address for `endpoint.url`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    closed: Arc<AtomicBool>,
}

impl Server {
    /// `behaviour` gets the question, how often it came before, and all requests so far. Probes are answered.
    pub fn start(behaviour: impl Fn(&str, usize, &[Asked]) -> Treatment + Send + Sync + 'static) -> Server {
        Server::start_with(move |question, _, before, asked| match question == PROBE {
            true => Treatment::Answer(vec![("A".to_owned(), -0.1), ("The".to_owned(), -3.0)]),
            false => behaviour(question, before, asked),
        })
    }

    /// `behaviour` gets the question and the whole request, of probes too.
    pub fn start_reading(behaviour: impl Fn(&str, &Value) -> Treatment + Send + Sync + 'static) -> Server {
        Server::start_with(move |question, body, _, _| behaviour(question, body))
    }

    fn start_with(behaviour: impl Fn(&str, &Value, usize, &[Asked]) -> Treatment + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (log, ended) = (asked.clone(), closed.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (log, ended, behaviour) = (log.clone(), ended.clone(), behaviour.clone());
                std::thread::spawn(move || serve(stream, &log, &ended, &*behaviour));
            }
        });
        Server { url, asked, closed }
    }

    /// The questions; probes are none.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| !asked.probe).cloned().collect()
    }

    /// The probes.
    pub fn probes(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.probe).cloned().collect()
    }

    /// The questions that were answered and paid for, each as often as it was.
    pub fn billed(&self) -> Vec<String> {
        self.asked().into_iter().filter(|asked| asked.billed).map(|asked| asked.question).collect()
    }

    /// Takes no more requests and lets hanging ones go.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://").trim_end_matches("/v1"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// The body of a chat completion.
pub fn completion(top: &[(String, f64)]) -> String {
    let list: Vec<Value> =
        top.iter().map(|(token, logp)| json!({"token": token, "logprob": logp, "bytes": null})).collect();
    let (token, logp) = &top[0];
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "stub",
        "choices": [{
            "index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": token},
            "logprobs": {"content": [{"token": token, "logprob": logp, "bytes": null, "top_logprobs": list}]},
        }],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string()
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Asked>>, closed: &AtomicBool, behaviour: &Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let (mut length, mut authorization, mut first, mut headers) = (0, None, String::new(), BTreeMap::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if first.is_empty() {
            line.clone_into(&mut first);
        }
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            }
            continue;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let kinds = ["/v1/chat/completions", "/v1/embeddings"];
    assert!(first.starts_with("POST ") && kinds.contains(&path.split('?').next().unwrap_or_default()), "{first}");
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let question = match body.get("input").and_then(Value::as_array) {
        Some(texts) => texts.iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("|"),
        None => body["messages"][0]["content"].as_str().unwrap().to_owned(),
    };
    let (number, treatment) = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|asked| asked.question == question).count();
        let treatment = behaviour(&question, &body, before, &log);
        let probe = question == PROBE;
        let billed = matches!(treatment, Treatment::Answer(_) | Treatment::Reply(_)) && !probe;
        let treated = treatment.clone();
        log.push(Asked { question, body, authorization, path, headers, probe, before, treatment: treated, billed });
        (log.len() - 1, treatment)
    };
    let head = |status: u16, length: usize, more: &str| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n"
        )
    };
    let good = completion(&[("A".to_owned(), -0.1), ("B".to_owned(), -3.0)]);
    let mut send = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush()).is_ok();
    let sent = match treatment {
        Treatment::Answer(top) => {
            let body = completion(&top);
            send(format!("{}{body}", head(200, body.len(), "")).as_bytes())
        }
        Treatment::Reply(body) => {
            let body = body.to_string();
            send(format!("{}{body}", head(200, body.len(), "")).as_bytes())
        }
        Treatment::Body(body) => send(head(200, body.len(), "").as_bytes()) && send(&body),
        Treatment::Packed(encoding, body) => {
            let more = format!("content-encoding: {encoding}\r\n");
            send(head(200, body.len(), &more).as_bytes()) && send(&body)
        }
        Treatment::Status(status, body, after) => {
            let more = after.map_or(String::new(), |after| format!("retry-after: {after}\r\n"));
            send(format!("{}{body}", head(status, body.len(), &more)).as_bytes())
        }
        Treatment::Reset => false,
        Treatment::BreakOff => send(format!("{}{}", head(200, good.len(), ""), &good[..good.len() / 2]).as_bytes()),
        Treatment::Slow(time) => {
            let begun = send(format!("{}{}", head(200, good.len(), ""), &good[..9]).as_bytes());
            std::thread::sleep(time);
            begun && send(&good.as_bytes()[9..])
        }
        Treatment::Hang => {
            while !closed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        }
    };
    if !sent {
        log.lock().unwrap()[number].billed = false;
    }
}
