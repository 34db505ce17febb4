//! A shared store in a bucket of services on this machine: moto's S3, and Azurite.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Project, Requirement, missing, ran, states, stderr};

use crate::{RUN, TABLES, all, machine};

const KEY: &str = "AKIACANARY0DDBA11";
const SECRET: &str = "canary/0ddba11+secret+key";
const TOKEN: &str = "canary-session-0ddba11==";

/// What Azurite's account, which everybody knows, allows whoever shows it.
const SHARED_ACCESS: &str = "sv=2021-08-06&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&sig=\
                             kV1%2FDJNn7340SUtIltqF6L9gEwifTOYTqBxfQeMSrhM%3D";

/// A service, until it is dropped, and a bucket in it.
pub struct Bucket {
    server: Child,
    at: String,
    /// Of the shared store.
    pub address: &'static str,
    /// The request that lists the bucket, and what stands before a name in the answer.
    list: (String, &'static str),
    environment: Vec<(&'static str, String)>,
}

impl Bucket {
    /// One of moto; none where there is no Python with it.
    pub fn moto() -> Option<Bucket> {
        let python = std::env::var("HALFTONE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = Command::new(&python).args(["-c", "import moto.server"]).output();
        if !has.is_ok_and(|output| output.status.success()) {
            missing(Requirement::Moto, "there is no Python with moto[server] in HALFTONE_PYTHON, nor python3 in PATH");
            return None;
        }
        let port = free_port();
        let mut server = Command::new(&python);
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port]);
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let list = ("/shelf?list-type=2".to_owned(), "<Key>");
        Some(Bucket::start(server, port, "s3://shelf/teams/a", "/shelf", list, environment))
    }

    /// One of Azurite; none where it is not in `PATH`.
    pub fn azurite() -> Option<Bucket> {
        let program = "azurite-blob";
        if Command::new(program).arg("--version").output().is_err() {
            missing(Requirement::Azurite, "`azurite-blob` is not in PATH (npm package azurite)");
            return None;
        }
        let port = free_port();
        let mut server = Command::new(program);
        server.args(["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", &port]);
        let environment = vec![
            ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
            ("AZURITE_BLOB_STORAGE_URL", format!("http://127.0.0.1:{port}")),
        ];
        let shelf = format!("/devstoreaccount1/shelf?restype=container&{SHARED_ACCESS}");
        let list = (format!("{shelf}&comp=list"), "<Name>");
        Some(Bucket::start(server, port, "az://shelf/teams/a", &shelf, list, environment))
    }

    fn start(
        mut server: Command,
        port: String,
        address: &'static str,
        make: &str,
        list: (String, &'static str),
        environment: Vec<(&'static str, String)>,
    ) -> Bucket {
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bucket = Bucket { server, at: format!("127.0.0.1:{port}"), address, list, environment };
        let began = Instant::now();
        let made = |answer: &str| answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 201 ");
        while !made(&bucket.ask("PUT", make)) {
            assert!(began.elapsed() < Duration::from_secs(60), "{address}: no answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        bucket
    }

    /// An answer; empty where there is none.
    fn ask(&self, method: &str, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.at) else { return String::new() };
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Manifests in the store at its address.
    pub fn keys(&self) -> usize {
        let (list, before) = &self.list;
        self.ask("GET", list).matches(&format!("{before}teams/a/entries/")).count()
    }

    /// A command of a machine that uses the bucket.
    pub fn command(&self, project: &Project, args: &[&str]) -> Command {
        let mut command = project.command(args);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// A port that is free a moment later still.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Compares what machines make of a bucket with what they make of a folder; gives what they said.
fn serves_as_a_folder_does(bucket: &Bucket, [first, second, third]: &[Project; 3]) -> Vec<Output> {
    let output = bucket.command(first, &RUN).output().unwrap();
    assert_eq!(ran(&output).len(), 4, "{}", all(&output));
    assert_eq!(bucket.keys(), 4);
    let plan = bucket.command(second, &["plan", "pipeline.yaml"]).output().unwrap();
    assert_eq!(all(&plan).matches("reuse (remote)").count(), 4, "{}", all(&plan));
    let fetched = bucket.command(second, &RUN).output().unwrap();
    assert!(states(&fetched).values().all(|state| *state == "reused"), "{}", all(&fetched));
    assert_eq!(second.store(".halftone"), first.store(".halftone"));
    let verified = bucket.command(second, &["verify", "--remote"]).output().unwrap();
    let there = format!("{}: 4 entries are there as here", bucket.address);
    assert!(all(&verified).contains(&there), "{}", all(&verified));
    // A bucket that is not there.
    let other = bucket.address.replace("shelf", "nowhere");
    let elsewhere = ["run", "pipeline.yaml", "--set", &format!("store.remote={other}")];
    let wrong = bucket.command(third, &elsewhere).output().unwrap();
    assert_eq!(wrong.status.code(), Some(78), "{}", all(&wrong));
    assert!(stderr(&wrong).contains("there is no bucket `nowhere`"), "{}", stderr(&wrong));
    assert!(!third.path(".halftone/store").exists());
    vec![output, plan, fetched, verified, wrong]
}

/// Lets six machines push the same at once.
fn of_many_writers_one_puts_each_manifest(bucket: &Bucket) {
    let before = bucket.keys();
    let machines: Vec<Project> = (0..6).map(|_| machine(TABLES, bucket.address, 300)).collect();
    let started: Vec<_> = machines.iter().map(|machine| bucket.command(machine, &RUN).spawn().unwrap()).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", all(&output));
    }
    assert_eq!(bucket.keys(), before + 4);
    assert!(machines.iter().all(|machine| machine.store(".halftone") == machines[0].store(".halftone")));
}

#[test]
fn s3_serves_as_a_folder_does_and_no_file_holds_a_key() {
    let Some(moto) = Bucket::moto() else { return };
    let machines = [(); 3].map(|()| machine(TABLES, moto.address, 3000));
    let third = &machines[2];
    let mut said = serves_as_a_folder_does(&moto, &machines);

    // Keys that must not go over a plain connection, a service that is away.
    let mut away = moto.command(third, &["run", "pipeline.yaml"]);
    let away = away.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output().unwrap();
    assert_eq!(away.status.code(), Some(69), "{}", all(&away));
    assert!(stderr(&away).contains(&format!("{} cannot be reached", moto.address)), "{}", stderr(&away));
    let mut plain = moto.command(third, &["run", "pipeline.yaml"]);
    let plain = plain.env_remove("AWS_ALLOW_HTTP").output().unwrap();
    assert_eq!(plain.status.code(), Some(69), "{}", all(&plain));
    assert!(!third.path(".halftone/store").exists());

    said.extend([away, plain]);
    for secret in [SECRET, TOKEN, KEY] {
        for project in &machines {
            let holds = |name: &String| {
                let bytes = std::fs::read(project.path(name)).unwrap();
                bytes.windows(secret.len()).any(|part| part == secret.as_bytes())
            };
            let found: Vec<String> = project.files(".", "").into_iter().filter(holds).collect();
            assert!(found.is_empty(), "{secret} in {found:?}");
        }
        for output in &said {
            assert!(secret == KEY || !all(output).contains(secret), "{}", all(output));
        }
    }
}

#[test]
fn of_many_writers_to_s3_one_puts_each_manifest() {
    Bucket::moto().iter().for_each(of_many_writers_one_puts_each_manifest);
}

#[test]
fn azure_serves_as_a_folder_does_and_takes_many_writers() {
    let Some(azurite) = Bucket::azurite() else { return };
    serves_as_a_folder_does(&azurite, &[(); 3].map(|()| machine(TABLES, azurite.address, 3000)));
    of_many_writers_one_puts_each_manifest(&azurite);
}
