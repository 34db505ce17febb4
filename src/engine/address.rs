//! Where a rank can be called: the name of its machine, and the addresses of the machine's interfaces. A name may be
//! unknown elsewhere, or mean whoever looks it up (127.0.1.1 on Debian); an interface may lead nowhere. So all are tried,
//! the name first.

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// A machine that is there answers sooner.
const ANSWER: Duration = Duration::from_secs(5);
/// Before the next way is tried beside those that have not come to an end.
const PAUSE: Duration = Duration::from_millis(250);
/// For all ways together: names may be looked up for longer.
const LONGEST: Duration = Duration::from_secs(15);

/// A port of a machine. As a text it is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name of the machine.
    pub machine: String,
    /// The same for processes that share a loopback interface.
    network: String,
    port: u16,
    /// Those that others may reach.
    interfaces: Vec<IpAddr>,
}

/// A port of this machine that listens on all interfaces.
///
/// # Errors
/// When the system gives none.
pub fn listen() -> Result<(TcpListener, Address)> {
    // Where IPv6 is on, its ports take IPv4 as well, unless the system says no.
    let both = std::fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|says| says.starts_with(b"0"));
    let any = if both { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
    let listener = TcpListener::bind((any, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let port = listener.local_addr()?.port();
    Ok((listener, Address { machine: machine(), network: network(), port, interfaces: interfaces() }))
}

impl Address {
    /// Of a line that an address was written as.
    pub fn of(line: &str) -> Option<Address> {
        let mut words = line.split(' ');
        let (machine, network) = (words.next()?.to_owned(), words.next()?.to_owned());
        let port = words.next()?.parse().ok()?;
        let interfaces = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some(Address { machine, network, port, interfaces })
    }

    /// A connection from a process at `own`, where somebody answers; else what became of each way.
    pub fn connect(&self, own: &Address) -> std::result::Result<TcpStream, String> {
        let ways = self.ways(own);
        let here = (self.network != own.network).then(|| own.interfaces.clone());
        let mut found = vec!["no answer".to_owned(); ways.len()];
        let (tell, told) = channel();
        let (began, mut begun, mut ended) = (Instant::now(), 0, 0);
        while ended < ways.len() && began.elapsed() < LONGEST {
            if let Some(way) = ways.get(begun) {
                let (tell, way, port, here, number) = (tell.clone(), way.clone(), self.port, here.clone(), begun);
                // Nobody hears of one that comes late.
                std::thread::spawn(move || tell.send((number, call(&way, port, here.as_deref()))));
                begun += 1;
            }
            match told.recv_timeout(PAUSE) {
                Ok((_, Ok(stream))) => return Ok(stream),
                Ok((number, Err(error))) => (found[number], ended) = (error.to_string(), ended + 1),
                Err(_) => {}
            }
        }
        let tried: Vec<String> = ways.iter().zip(found).map(|(way, what)| format!("{way}: {what}")).collect();
        Err(format!("port {} of {}", self.port, tried.join(", of ")))
    }

    /// Names and addresses to call, the likeliest first.
    fn ways(&self, own: &Address) -> Vec<String> {
        let named = [self.machine.clone()];
        let interfaces = self.interfaces.iter().map(IpAddr::to_string);
        if self.network == own.network {
            return [Ipv4Addr::LOCALHOST.to_string()].into_iter().chain(interfaces).chain(named).collect();
        }
        named.into_iter().chain(interfaces).collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { machine, network, port, interfaces } = self;
        write!(f, "{machine} {network} {port}")?;
        interfaces.iter().try_for_each(|interface| write!(f, " {interface}"))
    }
}

/// Calls another machine by a name or an address; those that lead back `here` are passed over.
fn call(way: &str, port: u16, here: Option<&[IpAddr]>) -> Result<TcpStream> {
    let back = |ip: IpAddr| here.is_some_and(|here| ip.to_canonical().is_loopback() || here.contains(&ip));
    let mut end = Error::new(ErrorKind::AddrNotAvailable, "leads back here");
    for at in (way, port).to_socket_addrs()?.filter(|at| !back(at.ip())) {
        match TcpStream::connect_timeout(&at, ANSWER) {
            Ok(stream) => return Ok(stream),
            Err(error) => end = error,
        }
    }
    Err(end)
}

/// The name of this machine.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && !name.contains(' '));
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// A word for what shares this process's loopback interface: this machine since it was started, or a container on it.
fn network() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    match (boot, std::fs::read_link("/proc/self/ns/net")) {
        (Ok(boot), Ok(space)) => format!("{}/{}", boot.trim(), space.display()),
        _ => machine(),
    }
}

/// The addresses of this machine's interfaces that are up, but for those that mean another machine elsewhere.
fn interfaces() -> Vec<IpAddr> {
    let (mut first, mut all) = (std::ptr::null_mut(), Vec::new());
    // SAFETY: the call fills in a list, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return all;
    }
    let mut next = first;
    // SAFETY: the list ends with a null pointer, and lives until it is given back below.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: where there is an address, its family says what it is.
        all.extend(unsafe { ip(entry) });
        next = entry.ifa_next;
    }
    // SAFETY: the list is as the call gave it.
    unsafe { libc::freeifaddrs(first) };
    all
}

/// # Safety
/// The entry is one of the system's list.
unsafe fn ip(entry: &libc::ifaddrs) -> Option<IpAddr> {
    let address = entry.ifa_addr;
    if entry.ifa_flags & libc::IFF_UP as libc::c_uint == 0 || address.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let ip = match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            let v4 = unsafe { (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr };
            IpAddr::from(Ipv4Addr::from_bits(u32::from_be(v4)))
        }
        libc::AF_INET6 => IpAddr::from(unsafe { (*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr }),
        _ => return None,
    };
    let near = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!near && !ip.is_loopback()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(network: &str, port: u16, interfaces: &[&str]) -> Address {
        let interfaces = interfaces.iter().map(|ip| ip.parse().unwrap()).collect();
        Address { machine: "no-such-machine.invalid".to_owned(), network: network.to_owned(), port, interfaces }
    }

    #[test]
    fn an_address_is_a_line() {
        for address in [address("one", 7, &["10.0.0.1", "fd00::1"]), address("two", 8, &[]), listen().unwrap().1] {
            assert_eq!(Address::of(&address.to_string()), Some(address));
        }
        assert!(["", "n1", "n1 one", "n1 one port", "n1 one 7 here"].iter().all(|line| Address::of(line).is_none()));
    }

    #[test]
    fn all_ways_are_tried_and_named() {
        let (listener, own) = listen().unwrap();
        // Only loopback answers: for those that share it, and for nobody else.
        let there = address(&own.network, own.port, &[]);
        assert_eq!(there.connect(&own).unwrap().peer_addr().unwrap().port(), own.port);
        let elsewhere = address("elsewhere", own.port, &["127.0.0.1", "::1", "10.0.0.1"]);
        let tried = elsewhere.connect(&address("here", 0, &["10.0.0.1"])).unwrap_err();
        for way in
            ["127.0.0.1: leads back here", ", of ::1: leads", ", of 10.0.0.1: leads", "no-such-machine.invalid: "]
        {
            assert!(tried.contains(way), "{tried}");
        }
        drop(listener);
        let tried = there.connect(&own).unwrap_err();
        assert!(tried.contains("127.0.0.1: Connection refused"), "{tried}");
    }

    #[test]
    fn interfaces_are_those_that_others_may_reach() {
        assert!(
            interfaces()
                .iter()
                .all(|ip| !ip.is_loopback() && !ip.is_unspecified() && !ip.to_string().starts_with("fe80"))
        );
    }
}
