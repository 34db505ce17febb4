//! A shared store in a bucket, of a local S3: moto.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Project, Requirement, missing, ran, states, stderr};

use crate::{RUN, TABLES, all, machine};

pub const ADDRESS: &str = "s3://shelf/teams/a";
const KEY: &str = "AKIACANARY0DDBA11";
const SECRET: &str = "canary/0ddba11+secret+key";
const TOKEN: &str = "canary-session-0ddba11==";

/// The server, until it is dropped.
pub struct Moto {
    server: Child,
    url: String,
}

impl Moto {
    /// Starts one with a bucket; none where there is no Python with moto.
    pub fn start() -> Option<Moto> {
        let python = std::env::var("HALFTONE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = Command::new(&python).args(["-c", "import moto.server"]).output();
        if !has.is_ok_and(|output| output.status.success()) {
            missing(Requirement::Moto, "there is no Python with moto[server] in HALFTONE_PYTHON, nor python3 in PATH");
            return None;
        }
        // The port is free a moment later still.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new(&python);
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Moto { server, url: format!("127.0.0.1:{port}") };
        let began = Instant::now();
        while !moto.ask("PUT", "/shelf").contains(" 200 ") {
            assert!(began.elapsed() < Duration::from_secs(60), "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(moto)
    }

    /// An answer; empty where there is none.
    fn ask(&self, method: &str, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.url) else { return String::new() };
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.url);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Manifests in the store at [`ADDRESS`].
    pub fn keys(&self) -> usize {
        self.ask("GET", "/shelf?list-type=2").matches("<Key>teams/a/entries/").count()
    }

    /// A command of a machine that uses the bucket.
    pub fn command(&self, project: &Project, args: &[&str]) -> Command {
        let mut command = project.command(args);
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.url)).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_SESSION_TOKEN", TOKEN);
        command.env("AWS_REGION", "us-east-1");
        command
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

#[test]
fn a_bucket_serves_as_a_folder_does_and_no_file_holds_a_key() {
    let Some(moto) = Moto::start() else { return };
    let machines = [(); 3].map(|()| machine(TABLES, ADDRESS, 3000));
    let [first, second, third] = &machines;
    let output = moto.command(first, &RUN).output().unwrap();
    assert_eq!(ran(&output).len(), 4, "{}", all(&output));
    assert_eq!(moto.keys(), 4);
    let plan = moto.command(second, &["plan", "pipeline.yaml"]).output().unwrap();
    assert_eq!(all(&plan).matches("reuse (remote)").count(), 4, "{}", all(&plan));
    let output = moto.command(second, &RUN).output().unwrap();
    assert!(states(&output).values().all(|state| *state == "reused"), "{}", all(&output));
    assert_eq!(second.store(".halftone"), first.store(".halftone"));
    let verified = moto.command(second, &["verify", "--remote"]).output().unwrap();
    assert!(all(&verified).contains(&format!("{ADDRESS}: 4 entries are there as here")), "{}", all(&verified));

    // Keys that the service refuses, a bucket that is not there, a service that is away.
    let wrong =
        moto.command(third, &["run", "pipeline.yaml", "--set", "store.remote=s3://nowhere/p"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(78), "{}", all(&wrong));
    assert!(stderr(&wrong).contains("there is no bucket `nowhere`"), "{}", stderr(&wrong));
    let mut away = moto.command(third, &["run", "pipeline.yaml"]);
    let away = away.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output().unwrap();
    assert_eq!(away.status.code(), Some(69), "{}", all(&away));
    assert!(stderr(&away).contains(&format!("{ADDRESS} cannot be reached")), "{}", stderr(&away));
    let mut plain = moto.command(third, &["run", "pipeline.yaml"]);
    let plain = plain.env_remove("AWS_ALLOW_HTTP").output().unwrap();
    assert_eq!(plain.status.code(), Some(69), "{}", all(&plain));
    assert!(!third.path(".halftone/store").exists());

    for secret in [SECRET, TOKEN, KEY] {
        for project in &machines {
            let holds = |name: &String| {
                let bytes = std::fs::read(project.path(name)).unwrap();
                bytes.windows(secret.len()).any(|part| part == secret.as_bytes())
            };
            let found: Vec<String> = project.files(".", "").into_iter().filter(holds).collect();
            assert!(found.is_empty(), "{secret} in {found:?}");
        }
        for output in [&output, &plan, &verified, &wrong, &away, &plain] {
            assert!(secret == KEY || !all(output).contains(secret), "{}", all(output));
        }
    }
}

#[test]
fn of_many_writers_one_puts_each_manifest() {
    let Some(moto) = Moto::start() else { return };
    let machines: Vec<Project> = (0..6).map(|_| machine(TABLES, ADDRESS, 300)).collect();
    let started: Vec<_> = machines.iter().map(|machine| moto.command(machine, &RUN).spawn().unwrap()).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", all(&output));
    }
    assert_eq!(moto.keys(), 4);
    assert!(machines.iter().all(|machine| machine.store(".halftone") == machines[0].store(".halftone")));
}
