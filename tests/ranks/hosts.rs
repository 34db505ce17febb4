//! Ranks over TCP on machines that share a folder and no loopback: networks of their own on this one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use harness::{Project, Requirement, missing};

use super::processes::{after_a_checkpoint, done, ends, rank};
use super::{begin, files, same_bytes};

/// A machine with a name and a network of its own. Both are gone with the process that holds them, which ends when it is
/// dropped or this test ends, however it ends.
struct Host {
    holder: Child,
}

impl Host {
    /// With a file `/etc/hosts` of these lines; none where this machine cannot do so.
    fn up(name: &str, known: &str) -> Option<Host> {
        let script = format!(
            "hostname {name} && ip link set lo up && mount -t tmpfs none /mnt && echo '127.0.0.1 localhost\n{known}' > \
             /mnt/hosts && mount --bind /mnt/hosts /etc/hosts && echo up && read end"
        );
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--uts", "--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut host = Host { holder: holder.spawn().ok()? };
        let mut line = String::new();
        BufReader::new(host.holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (line == "up\n").then_some(host)
    }

    /// What is before a command to have it there.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--uts", "--mount"]);
        command
    }

    /// Runs `ip` there.
    #[track_caller]
    fn ip(&self, args: &str) {
        let output = self.enter().arg("ip").args(args.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A command as it is there.
    fn command(&self, of: &Command) -> Command {
        let mut command = self.enter();
        // Another machine's view of files begins at the root.
        command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(of.get_current_dir().unwrap());
        command.arg(of.get_program()).args(of.get_args());
        for (key, value) in of.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

/// Two machines with a cable between their interfaces `eth0`, which have these addresses.
fn two(names: [&str; 2], known: &str, addresses: [&str; 2]) -> Option<[Host; 2]> {
    let Some(hosts) = names.map(|name| Host::up(name, known)).into_iter().collect::<Option<Vec<_>>>() else {
        missing(Requirement::Networks, "networks of their own take root, and `ip`, `unshare` and `nsenter` in PATH");
        return None;
    };
    let hosts: [Host; 2] = hosts.try_into().ok()?;
    hosts[0].ip(&format!("link add eth0 type veth peer name eth0 netns {}", hosts[1].holder.id()));
    give(&hosts, "eth0", addresses);
    Some(hosts)
}

/// Gives interfaces addresses.
fn give(hosts: &[Host; 2], interface: &str, addresses: [&str; 2]) {
    for (host, address) in hosts.iter().zip(addresses) {
        // No time passes until an address of IPv6 may be used.
        let now = if address.contains(':') { " nodad" } else { "" };
        host.ip(&format!("link set {interface} up"));
        host.ip(&format!("addr add {address} dev {interface}{now}"));
    }
}

/// Ranks of which each host has as many, the first ones on the first.
fn ranks(hosts: &[Host; 2], project: &Project, size: usize, args: &[&str]) -> Vec<Command> {
    (0..size).map(|of| hosts[of * 2 / size].command(&rank(project, of, size, &["tcp"], args))).collect()
}

#[test]
fn two_hosts_give_the_bytes_of_one_process_whatever_their_names_and_interfaces() {
    const ADDRESSES: [&str; 2] = ["10.77.0.1/24", "10.77.0.2/24"];
    let project = files();
    let Some(unknown) = two(["node-a", "node-b"], "", ADDRESSES) else { return };
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    begin(&project, "hosts");
    let train = |hosts: &[Host; 2], stage: &str| {
        done(ranks(hosts, &project, 4, &["--stage", stage, "--work", "hosts", "--quiet"]));
    };
    train(&unknown, "sft");
    train(&two(["node-a", "node-b"], "", ["fd77::1/64", "fd77::2/64"]).unwrap(), "rpo");
    // Clones of one Debian: whoever looks up the name gets an address of its own.
    train(&two(["node", "node"], "127.0.1.1 node", ADDRESSES).unwrap(), "jpo");
    // A cable that goes nowhere, and addresses that each of them has.
    let many = two(["node-a", "node-b"], "", ["172.17.0.1/16", "172.17.0.1/16"]).unwrap();
    for host in &many {
        host.ip("link add eth1 type veth peer name loose");
        host.ip("link set loose up");
    }
    give(&many, "eth1", ["10.78.0.1/24", "10.78.0.2/24"]);
    give(&many, "eth0", ADDRESSES);
    train(&many, "lora");

    // The cable is pulled out of a training that is at work.
    let named = two(["node-a", "node-b"], "10.77.0.1 node-a\n10.77.0.2 node-b", ADDRESSES).unwrap();
    let args = ["--stage", "dpo", "--work", "hosts", "--patience", "8", "--json"];
    let mut children: Vec<Child> =
        ranks(&named, &project, 4, &args).into_iter().map(|mut rank| rank.spawn().unwrap()).collect();
    let reader = after_a_checkpoint(&mut children, |_| named[1].ip("link set eth0 down"));
    let ended = ends(children);
    reader.join().unwrap();
    assert!(ended.iter().all(|(code, _)| *code == Some(75)), "{ended:?}");
    assert!(ended.iter().any(|(_, text)| text.contains("not heard of for 8 s: rank ")), "{ended:?}");
    // The same command before it is in again, and after.
    let apart = ranks(&named, &project, 2, &args).into_iter().map(|mut rank| rank.spawn().unwrap()).collect();
    let ended = ends(apart);
    assert!(ended.iter().all(|(code, _)| *code == Some(75)), "{ended:?}");
    let tried = &ended[1].1;
    assert!(tried.contains("rank 0 on node-a, port ") && tried.contains(" of 10.77.0.1: "), "{tried}");
    named[1].ip("link set eth0 up");
    train(&named, "dpo");
    same_bytes(&project, "hosts");
}
