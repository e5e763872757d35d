//! DNS probes: one question to one name server, past every cache of this host.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use serde_json::Value;
use squall_experiments::probe::compare::Found;
use squall_experiments::probe::{DnsProbe, Expect, RecordKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::expect::{Seen, short};
use super::looks::shorter;
use super::reach;
use super::tcp::{self, Stage, limited, words};
use super::value::ExpectValue;

/// The largest answer in one datagram that is asked for (DNS flag day 2020), in bytes.
const DATAGRAM: u16 = 1232;
/// How long is waited for an answer before the question is sent again, as a datagram may get lost.
const AGAIN: Duration = Duration::from_millis(800);

/// A DNS probe, ready to be sampled.
pub(super) struct DnsLook {
    query: Query,
    server: SocketAddr,
    timeout: Duration,
    rcode: Option<String>,
    expect: ExpectValue,
}

impl DnsLook {
    /// Understands the name, and finds the server; an error says why not.
    pub(super) fn new(probe: &DnsProbe, expect: &Expect) -> Result<Self, String> {
        let mut name =
            Name::from_ascii(&probe.name).map_err(|_| format!("`{}` is not a name", probe.name))?;
        name.set_fqdn(true);
        let server = match &probe.server {
            Some(server) => address(server).ok_or_else(|| format!("`{server}` is not an address"))?,
            None => of_this_host()?,
        };
        reach::permits(server)?;
        Ok(DnsLook {
            query: Query::query(name, record_type(probe.kind)),
            server,
            timeout: probe.timeout.get(),
            rcode: expect.rcode.clone(),
            expect: ExpectValue::new(expect)?,
        })
    }

    /// Asks once.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(tcp::WAITING);
        match limited(shorter(self.timeout, left), &stage, self.exchange(&stage)).await {
            Err(failure) => Seen::bad(failure),
            Ok(answer) => self.judge(&answer, begun.elapsed()),
        }
    }

    fn judge(&self, answer: &Message, took: Duration) -> Seen {
        let code = rcode(answer.metadata.response_code);
        let expected = self.rcode.as_deref().unwrap_or("NOERROR");
        if code != expected {
            return Seen::bad(format!("{code} (expected {expected})"));
        }
        let wanted = self.query.query_type();
        let own = answer.answers.iter().filter(|record| record.record_type() == wanted);
        let mut values: Vec<String> = own.map(|record| record.data.to_string()).collect();
        values.sort_unstable();
        if values.is_empty() && self.rcode.is_none() && !self.expect.expects_nothing() {
            return Seen::bad(format!("no {wanted} record"));
        }
        self.expect.judge(&Found::Typed(Value::from(values)), took)
    }

    async fn exchange(&self, stage: &Stage) -> Result<Message, String> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(self.query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        question.set_edns(edns);
        let bytes = question.to_vec().map_err(|error| error.to_string())?;
        let id = question.metadata.id;
        let answer = self.by_datagram(&bytes, id).await.map_err(|error| words(&error))?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        stage.set("waiting for the whole answer");
        self.by_stream(&bytes, id).await.map_err(|error| words(&error))
    }

    async fn by_datagram(&self, question: &[u8], id: u16) -> io::Result<Message> {
        let any: IpAddr = match self.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(self.server).await?;
        let mut buffer = vec![0; 65_535];
        loop {
            socket.send(question).await?;
            let answered = timeout(AGAIN, async {
                loop {
                    let length = socket.recv(&mut buffer).await?;
                    // Anything that is no answer to this question may be from somebody else.
                    if let Some(answer) = self.answer(&buffer[..length], id) {
                        return io::Result::Ok(answer);
                    }
                }
            });
            if let Ok(answer) = answered.await {
                return answer;
            }
        }
    }

    async fn by_stream(&self, question: &[u8], id: u16) -> io::Result<Message> {
        let mut stream = TcpStream::connect(self.server).await?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await?;
        self.answer(&bytes, id).ok_or_else(|| io::Error::other("the answer is not DNS"))
    }

    fn answer(&self, bytes: &[u8], id: u16) -> Option<Message> {
        let answer = Message::from_vec(bytes).ok()?;
        let same = answer.queries.first().is_none_or(|query| *query == self.query);
        (answer.metadata.id == id && same).then_some(answer)
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
}

/// The first name server of this host, as its programs would ask it (resolv.conf(5)).
fn of_this_host() -> Result<SocketAddr, String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let first = servers.find_map(|server| address(server.trim()));
    first.ok_or_else(|| "this host has no name server in `/etc/resolv.conf`: set `server`".to_owned())
}

fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Cname => RecordType::CNAME,
        RecordKind::Mx => RecordType::MX,
        RecordKind::Ns => RecordType::NS,
        RecordKind::Ptr => RecordType::PTR,
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Txt => RecordType::TXT,
    }
}

/// A response code as the standard writes it (RFC 1035 section 4.1.1, and IANA's list).
pub(crate) fn rcode(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => short(&other.to_string()),
    }
}
