//! A scripted DNS server (RFC 1035) on UDP and TCP: it answers each name as the test says, notes every question,
//! and knows no other names.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// How questions for one name are answered.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the resolver's own tests, which include this file, use the rest")]
pub enum Reply {
    /// Those of the addresses that are of the family asked for, with a time to live in seconds; without any, the
    /// name exists and has nothing.
    At(Vec<IpAddr>, u32),
    /// An alias with a time to live, and its target's addresses with theirs.
    Alias(&'static str, u32, Vec<IpAddr>, u32),
    /// Over UDP only that the answer is too long; over TCP the addresses.
    Truncated(Vec<IpAddr>, u32),
    /// NXDOMAIN.
    NoName,
    /// SERVFAIL.
    Failure,
    /// For IPv4 as `At`, for IPv6 nothing at all.
    SilentOnIpv6(Vec<IpAddr>, u32),
    Silence,
    /// Bytes that are no message, with the right identifier.
    Garbage,
}

impl Reply {
    pub fn at(address: &str, ttl: u32) -> Self {
        Reply::At(vec![address.parse().expect("an address")], ttl)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the final dot.
    pub name: String,
    pub family: Family,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Listens on one port of 127.0.0.1, UDP and TCP, until it is dropped.
pub struct Dns {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Default)]
struct Notes {
    replies: HashMap<String, Reply>,
    questions: Vec<Question>,
    stopped: bool,
}

impl Dns {
    pub fn start() -> Self {
        let (udp, tcp) = same_port();
        let address = udp.local_addr().expect("a socket has an address");
        let seen = Arc::<Seen>::default();
        let (for_udp, for_tcp) = (seen.clone(), seen.clone());
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &for_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &for_tcp)),
        ];
        Dns { address, seen, threads }
    }

    /// Answers questions for `name` like this from now on.
    pub fn set(&self, name: &str, reply: Reply) {
        self.seen.notes().replies.insert(name.to_owned(), reply);
    }

    /// Every question so far.
    pub fn questions(&self) -> Vec<Question> {
        self.seen.notes().questions.clone()
    }

    /// Waits until `count` more questions have come than there are now.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let notes = self.seen.notes();
        let wanted = notes.questions.len() + count;
        let few = |notes: &mut Notes| notes.questions.len() < wanted;
        let (notes, waited) = self.seen.changed.wait_timeout_while(notes, Duration::from_secs(30), few).unwrap();
        drop(notes);
        assert!(!waited.timed_out(), "no {count} more questions");
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.seen.notes().stopped = true;
        // Wakes the two threads.
        let _ = TcpStream::connect(self.address);
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], self.address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// Notes the question; the answer to it, if there is to be one.
    fn answer(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let (question, end) = parse(message, transport)?;
        let mut notes = self.notes();
        notes.questions.push(question.clone());
        let reply = notes.replies.get(&question.name).cloned().unwrap_or(Reply::NoName);
        drop(notes);
        self.changed.notify_all();
        answer(&message[..end], &question, reply)
    }
}

fn same_port() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("a listener has an address")) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

fn serve_udp(socket: &UdpSocket, seen: &Seen) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if seen.notes().stopped {
            return;
        }
        if let Some(answer) = seen.answer(&buffer[..length], Transport::Udp) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, seen: &Arc<Seen>) {
    for stream in listener.incoming() {
        let (Ok(mut stream), false) = (stream, seen.notes().stopped) else {
            return;
        };
        let seen = seen.clone();
        std::thread::spawn(move || while exchange_over_tcp(&mut stream, &seen).is_some() {});
    }
}

/// One question and its answer, each after its length (RFC 1035 section 4.2.2).
fn exchange_over_tcp(stream: &mut TcpStream, seen: &Seen) -> Option<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    let answer = seen.answer(&message, Transport::Tcp)?;
    let length = u16::try_from(answer.len()).expect("a short answer").to_be_bytes();
    stream.write_all(&[&length, answer.as_slice()].concat()).ok()
}

/// The question, and where it ends.
fn parse(message: &[u8], transport: Transport) -> Option<(Question, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        let label = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        match length {
            0 => break,
            _ => labels.push(String::from_utf8_lossy(label).to_ascii_lowercase()),
        }
    }
    let family = match u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]) {
        A => Family::V4,
        AAAA => Family::V6,
        _ => return None,
    };
    message.get(at + 3)?;
    Some((Question { name: labels.join("."), family, transport }, at + 4))
}

fn answer(asked: &[u8], question: &Question, reply: Reply) -> Option<Vec<u8>> {
    use Transport::Udp;
    let family = question.family;
    match reply {
        Reply::At(ips, ttl) => Some(message(asked, Outcome::Answered, &[addresses(family, &ips, ttl)])),
        Reply::Alias(to, alias_ttl, ips, ttl) => {
            // The target's records bear its name, which the alias has written out.
            let name = encode(to);
            let targets =
                addresses(family, &ips, ttl).into_iter().map(|record| Record { name: name.clone(), ..record });
            let alias = Record { name: QUESTION.to_vec(), kind: CNAME, ttl: alias_ttl, data: name.clone() };
            Some(message(asked, Outcome::Answered, &[vec![alias], targets.collect()]))
        }
        Reply::Truncated(..) if question.transport == Udp => Some(message(asked, Outcome::Truncated, &[])),
        Reply::Truncated(ips, ttl) => Some(message(asked, Outcome::Answered, &[addresses(family, &ips, ttl)])),
        Reply::NoName => Some(message(asked, Outcome::NoName, &[])),
        Reply::Failure => Some(message(asked, Outcome::Failure, &[])),
        Reply::SilentOnIpv6(..) if family == Family::V6 => None,
        Reply::SilentOnIpv6(ips, ttl) => Some(message(asked, Outcome::Answered, &[addresses(family, &ips, ttl)])),
        Reply::Silence => None,
        Reply::Garbage => Some([&asked[..2], &[0xff; 30]].concat()),
    }
}

/// A pointer to the question's name (RFC 1035 section 4.1.4).
const QUESTION: [u8; 2] = [0xc0, 12];

struct Record {
    name: Vec<u8>,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

fn addresses(family: Family, ips: &[IpAddr], ttl: u32) -> Vec<Record> {
    let record = |ip: &IpAddr| match (ip, family) {
        (IpAddr::V4(v4), Family::V4) => {
            Some(Record { name: QUESTION.to_vec(), kind: A, ttl, data: v4.octets().to_vec() })
        }
        (IpAddr::V6(v6), Family::V6) => {
            Some(Record { name: QUESTION.to_vec(), kind: AAAA, ttl, data: v6.octets().to_vec() })
        }
        _ => None,
    };
    ips.iter().filter_map(record).collect()
}

fn encode(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name.split('.') {
        encoded.push(u8::try_from(label.len()).expect("a short label"));
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    encoded
}

#[derive(Clone, Copy)]
enum Outcome {
    Answered,
    Truncated,
    NoName,
    Failure,
}

/// `asked` is the question's message up to the end of the question.
fn message(asked: &[u8], outcome: Outcome, records: &[Vec<Record>]) -> Vec<u8> {
    let records: Vec<_> = records.iter().flatten().collect();
    // An answer to a question that wanted recursion, by a server that offers it.
    let flags: u16 = match outcome {
        Outcome::Answered => 0x8180,
        Outcome::Truncated => 0x8380,
        Outcome::NoName => 0x8183,
        Outcome::Failure => 0x8182,
    };
    let mut message = asked[..2].to_vec();
    message.extend(flags.to_be_bytes());
    let counts = [1, u16::try_from(records.len()).expect("few records"), 0, 0];
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(&asked[12..]);
    for record in records {
        message.extend(&record.name);
        message.extend(record.kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(record.ttl.to_be_bytes());
        message.extend(u16::try_from(record.data.len()).expect("short data").to_be_bytes());
        message.extend(&record.data);
    }
    message
}
