//! How processes that were started together find each other: rank 0 leaves its [`Address`] in the work folder, which all
//! of them see. The others call there, and are told where all are. Then each pair of ranks has a connection.
//!
//! An address that an earlier start left does no harm: nobody answers there, or somebody who does not know the word that
//! stands beside it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::{Error, Result};

use crate::engine::address::{Address, listen};
use crate::engine::launch::Place;

/// Between two looks whether somebody is there.
const LOOK: Duration = Duration::from_millis(20);
/// A machine that is there answers sooner.
const ANSWER: Duration = Duration::from_secs(5);
/// One that waits for so long says for whom.
const NOTICE: Duration = Duration::from_secs(20);
/// Bytes of a message at most: the addresses of all ranks.
const LONGEST: u32 = 1 << 20;

/// The others, by rank; nothing in one's own place.
pub struct Met {
    pub streams: Vec<Option<TcpStream>>,
    /// The machines of all ranks.
    pub machines: Vec<String>,
}

/// Meets the others; the address lies in `folder` meanwhile. `say` is told for whom it waits where that takes long.
///
/// # Errors
/// [`Error::Waiting`] where others do not come for so long as this one has patience; where two processes say that they
/// are one rank, or of different numbers of ranks.
pub fn meet(folder: &Path, name: &str, place: &Place, patience: Duration, say: &dyn Fn(&str)) -> Result<Met> {
    let (listener, own) = listen().map_err(Error::io("a port for the other ranks"))?;
    let start = if place.start.is_empty() { String::new() } else { format!(".{}", plain(&place.start)) };
    let file = folder.join(format!("{}{start}", plain(name)));
    let (began, streams) = (Instant::now(), (0..place.size).map(|_| None).collect());
    let mut met = Meeting { place, began, patience, say: Some(say), word: String::new(), streams };
    let all = match place.rank {
        0 => met.lead(&listener, own, &file)?,
        _ => met.follow(&listener, own, &file)?,
    };
    for stream in met.streams.iter().flatten() {
        let plain = stream.set_read_timeout(None).and_then(|()| stream.set_nodelay(true));
        plain.map_err(Error::io("a connection of ranks"))?;
    }
    Ok(Met { streams: met.streams, machines: all.into_iter().map(|address| address.machine).collect() })
}

struct Meeting<'a> {
    place: &'a Place,
    began: Instant,
    patience: Duration,
    /// Nothing after it was used.
    say: Option<&'a dyn Fn(&str)>,
    /// Known to those that read the file.
    word: String,
    streams: Vec<Option<TcpStream>>,
}

impl Meeting<'_> {
    fn lead(&mut self, listener: &TcpListener, own: Address, file: &Path) -> Result<Vec<Address>> {
        self.word = word()?;
        let mut all = vec![own.clone(); self.place.size];
        if self.place.size > 1 {
            publish(file, &own, &self.word)?;
        }
        let called = self.called(listener, 1..self.place.size, |rank, address| all[rank] = address);
        // Whoever reads it from now on comes too late.
        if std::fs::read_to_string(file).is_ok_and(|text| text.ends_with(&self.word)) {
            let _ = std::fs::remove_file(file);
        }
        called?;
        let lines: Vec<String> = all.iter().map(Address::to_string).collect();
        for stream in self.streams.iter_mut().flatten() {
            send(stream, &lines.join("\n")).map_err(Error::io("a connection of ranks"))?;
        }
        Ok(all)
    }

    fn follow(&mut self, listener: &TcpListener, own: Address, file: &Path) -> Result<Vec<Address>> {
        let mut missing = format!("rank 0, which has no address in {}", file.display());
        let all = loop {
            let known = std::fs::read_to_string(file).ok();
            let known = known.as_deref().and_then(|text| text.split_once('\n'));
            if let Some((address, word)) = known.and_then(|(line, word)| Some((Address::of(line)?, word))) {
                self.word = word.to_owned();
                match address.connect(&own) {
                    Ok(stream) => match self.told(stream, &own, file)? {
                        Some(all) => break all,
                        None => missing = format!("rank 0, which is not on {} any more", address.machine),
                    },
                    Err(tried) => missing = format!("rank 0 on {}, {tried}", address.machine),
                }
            }
            self.wait(|| missing.clone())?;
        };
        for (rank, address) in all.iter().enumerate().take(self.place.rank).skip(1) {
            let mut stream = loop {
                match address.connect(&own) {
                    Ok(stream) => break stream,
                    Err(tried) => self.wait(|| format!("rank {rank} on {}, {tried}", address.machine))?,
                }
            };
            self.call(&mut stream, &own).map_err(Error::io("a connection of ranks"))?;
            self.streams[rank] = Some(stream);
        }
        self.called(listener, self.place.rank + 1..self.place.size, |_, _| ())?;
        Ok(all)
    }

    /// Asks rank 0 where all are; nothing where it is nobody who knows the word.
    fn told(&mut self, mut stream: TcpStream, own: &Address, file: &Path) -> Result<Option<Vec<Address>>> {
        let answered = self.call(&mut stream, own).is_ok() && self.answers(&stream, file);
        let Some(text) = answered.then(|| receive(&mut stream).ok()).flatten() else { return Ok(None) };
        if let Some(refusal) = text.strip_prefix('!') {
            return Err(Error::Pipeline(refusal.to_owned()));
        }
        let all: Option<Vec<Address>> = text.lines().map(Address::of).collect();
        let all = all.filter(|all| all.len() == self.place.size);
        let all = all.ok_or_else(|| Error::internal("rank 0 told no list of all ranks"))?;
        self.streams[0] = Some(stream);
        Ok(Some(all))
    }

    /// True once an answer begins, which comes when all ranks are there. False where rank 0 is found to be elsewhere.
    fn answers(&mut self, stream: &TcpStream, file: &Path) -> bool {
        while self.began.elapsed() < self.patience {
            let began = stream.set_read_timeout(Some(Duration::from_millis(500))).and_then(|()| stream.peek(&mut [0]));
            match began {
                Ok(bytes) => return bytes > 0 && stream.set_read_timeout(Some(ANSWER)).is_ok(),
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(_) if std::fs::read_to_string(file).is_ok_and(|text| !text.ends_with(&self.word)) => return false,
                Err(_) => self.notice(|| "rank 0 to meet all others".to_owned()),
            }
        }
        false
    }

    fn call(&self, stream: &mut TcpStream, own: &Address) -> std::io::Result<()> {
        let Place { rank, size, .. } = self.place;
        send(stream, &format!("{}\n{rank} {size}\n{own}", self.word))
    }

    /// Waits until these ranks have called.
    fn called(
        &mut self,
        listener: &TcpListener,
        ranks: std::ops::Range<usize>,
        mut heard: impl FnMut(usize, Address),
    ) -> Result<()> {
        listener.set_nonblocking(true).map_err(Error::io("a port for the other ranks"))?;
        loop {
            let missing: Vec<usize> = ranks.clone().filter(|rank| self.streams[*rank].is_none()).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let Ok((mut stream, _)) = listener.accept() else {
                let names = || missing.iter().map(|rank| format!("rank {rank}")).collect::<Vec<_>>().join(", ");
                self.wait(names)?;
                continue;
            };
            let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(ANSWER)));
            let Ok(text) = ready.and_then(|()| receive(&mut stream)) else { continue };
            let Some((rank, size, address)) = caller(&text, &self.word) else { continue };
            let refusal = if size != self.place.size {
                format!("rank {rank} was started as one of {size} ranks, and rank 0 as one of {}", self.place.size)
            } else if !ranks.contains(&rank) || self.streams[rank].is_some() {
                format!("two processes were started as rank {rank}: are there two starts of one stage at once?")
            } else {
                heard(rank, address);
                self.streams[rank] = Some(stream);
                continue;
            };
            for stream in self.streams.iter_mut().flatten().chain([&mut stream]) {
                // It is told here in any case.
                let _ = send(stream, &format!("!{refusal}"));
            }
            return Err(Error::Pipeline(refusal));
        }
    }

    /// Waits a moment for somebody, as long as there is patience.
    fn wait(&mut self, who: impl FnOnce() -> String) -> Result<()> {
        let (rank, waited) = (self.place.rank, self.began.elapsed());
        if waited >= self.patience {
            return Err(Error::Waiting(format!("did not come to meet rank {rank}: {}; start all ranks again", who())));
        }
        self.notice(who);
        std::thread::sleep(LOOK);
        Ok(())
    }

    /// Says for whom this rank waits, once that takes long.
    fn notice(&mut self, who: impl FnOnce() -> String) {
        let waited = self.began.elapsed();
        if let Some(say) = self.say.take_if(|_| waited > NOTICE) {
            let (rank, patience, who) = (self.place.rank, self.patience.as_secs(), who());
            say(&format!("rank {rank} has waited for {} s, and will for {patience}: {who}", waited.as_secs()));
        }
    }
}

/// The rank, the number of ranks and the address of one who calls and knows the word.
fn caller(text: &str, word: &str) -> Option<(usize, usize, Address)> {
    let mut lines = text.lines();
    lines.next().filter(|said| *said == word)?;
    let (rank, size) = lines.next()?.split_once(' ')?;
    Some((rank.parse().ok()?, size.parse().ok()?, Address::of(lines.next()?)?))
}

/// A text, after its length.
fn send(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(&[&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat())
}

fn receive(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into())
}

/// Leaves an address where only this user reads it.
fn publish(file: &Path, address: &Address, word: &str) -> Result<()> {
    let folder = file.parent().expect("a file in the work folder");
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let fresh = PathBuf::from(format!("{}.new", file.display()));
    // What another start left may be another user's.
    let _ = std::fs::remove_file(&fresh);
    let mut open = OpenOptions::new();
    let opened = open.write(true).create_new(true).mode(0o600).open(&fresh).map_err(Error::io(&fresh));
    opened?
        .write_all(format!("{address}\n{word}").as_bytes())
        .and_then(|()| std::fs::rename(&fresh, file))
        .map_err(Error::io(file))
}

/// A word that nobody guesses.
fn word() -> Result<String> {
    let (source, mut bytes) = ("/dev/urandom", [0; 16]);
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::io(source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A word as a part of a file's name.
fn plain(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn place(rank: usize, size: usize) -> Place {
        Place { rank, size, local: rank, start: "job 7".to_owned() }
    }

    /// What each of these processes gets, as threads.
    fn met(folder: &Path, places: &[Place], patience: Duration) -> Vec<Result<Met>> {
        std::thread::scope(|scope| {
            let meet = |place| scope.spawn(move || meet(folder, "policy", place, patience, &|_| ()));
            let threads: Vec<_> = places.iter().map(meet).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_pair_is_connected_and_what_an_earlier_start_left_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.job-7");
        // Nobody listens there; then somebody who does not answer.
        let ((closed, gone), (_deaf, there)) = (listen().unwrap(), listen().unwrap());
        drop(closed);
        for left in [gone, there] {
            std::fs::write(&file, format!("{left}\nanother word")).unwrap();
            let places = [3, 1, 2, 0].map(|rank| place(rank, 4));
            let mut all: Vec<Met> = met(folder.path(), &places, PATIENCE).into_iter().map(|met| met.unwrap()).collect();
            let order = [3, 1, 2, 0];
            assert!(all.iter().all(|met| met.machines == vec![left.machine.clone(); 4]));
            for (at, rank) in order.into_iter().enumerate() {
                for other in (0..4).filter(|other| *other != rank) {
                    let word = format!("{rank} to {other}");
                    send(all[at].streams[other].as_mut().unwrap(), &word).unwrap();
                    let there = order.iter().position(|rank| *rank == other).unwrap();
                    assert_eq!(receive(all[there].streams[rank].as_mut().unwrap()).unwrap(), word);
                }
            }
            assert!(!file.exists(), "nobody else comes");
        }
    }

    #[test]
    fn one_process_meets_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let met = meet(folder.path(), "policy", &place(0, 1), Duration::ZERO, &|_| ()).unwrap();
        assert!(met.streams.len() == 1 && met.streams[0].is_none() && met.machines.len() == 1);
    }

    #[test]
    fn those_that_do_not_come_and_those_that_come_twice_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(300);
        let alone = met(folder.path(), &[place(0, 4), place(2, 4)], patience);
        let text = alone[0].as_ref().err().unwrap().to_string();
        assert_eq!(text, "did not come to meet rank 0: rank 1, rank 3; start all ranks again");
        assert!(matches!(alone[1], Err(Error::Waiting(_))));
        let text = met(folder.path(), &[place(1, 2)], patience)[0].as_ref().err().unwrap().to_string();
        let file = folder.path().join("policy.job-7");
        let none = format!("rank 0, which has no address in {}; start all ranks again", file.display());
        assert_eq!(text, format!("did not come to meet rank 1: {none}"));
        // One that cannot be reached, and where it was looked for.
        let (closed, gone) = listen().unwrap();
        drop(closed);
        std::fs::write(&file, format!("{gone}\nanother word")).unwrap();
        let text = met(folder.path(), &[place(1, 2)], patience)[0].as_ref().err().unwrap().to_string();
        assert!(text.contains("rank 0 on ") && text.contains("127.0.0.1: Connection refused"), "{text}");

        let refused = |places: &[Place], wanted: &str| {
            let texts = met(folder.path(), places, Duration::from_secs(1));
            let texts: Vec<String> = texts.iter().filter_map(|met| Some(met.as_ref().err()?.to_string())).collect();
            assert!(texts.iter().any(|text| text.contains(wanted)), "{texts:?}");
        };
        refused(&[place(0, 4), place(1, 4), place(1, 4)], "two processes were started as rank 1");
        refused(&[place(0, 2), place(1, 4)], "rank 1 was started as one of 4 ranks, and rank 0 as one of 2");
    }
}
