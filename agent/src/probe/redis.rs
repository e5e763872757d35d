//! Redis probes: one command over RESP2, the protocol that every server speaks without being asked for another.

use std::time::{Duration, Instant};

use serde_json::Value;
use squall_experiments::probe::compare::Found;
use squall_experiments::probe::{Expect, RedisProbe};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};

use super::expect::{Seen, short};
use super::looks::shorter;
use super::stream::{LONGEST_ANSWER, Secured, open};
use super::tcp::{self, Address, Stage, limited, words};
use super::value::ExpectValue;

/// How deep an answer may be nested.
const DEEPEST: usize = 16;
/// Errors that say that the question was wrong, not that the server is unwell.
const WRONG_QUESTION: [&str; 8] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "WRONGTYPE",
    "ERR unknown",
    "ERR wrong number",
    "ERR syntax",
    "ERR AUTH",
];

/// A Redis probe, ready to be sampled.
pub(super) struct RedisLook {
    address: Address,
    tls: Option<Secured>,
    /// What is sent before the command, and must be answered with `OK`.
    before: Vec<Vec<String>>,
    command: Vec<String>,
    timeout: Duration,
    expect: ExpectValue,
}

/// What a server answered.
enum Reply {
    Value(Found),
    Error(String),
}

impl RedisLook {
    /// Understands the address; an error says why not.
    pub(super) fn new(probe: &RedisProbe, expect: &Expect) -> Result<Self, String> {
        let address = Address::new(&probe.address)?;
        let mut before = Vec::new();
        if let Some(password) = &probe.password {
            let words = ["AUTH".to_owned()].into_iter().chain(probe.user.clone()).chain([password.clone()]);
            before.push(words.collect());
        }
        if let Some(database) = probe.database {
            before.push(vec!["SELECT".to_owned(), database.to_string()]);
        }
        if probe.command.is_empty() {
            return Err("`command` is empty".to_owned());
        }
        Ok(RedisLook {
            tls: probe.tls.as_ref().map(|tls| Secured::new(&address.host, Some(tls))).transpose()?,
            address,
            before,
            command: probe.command.clone(),
            timeout: probe.timeout.get(),
            expect: ExpectValue::new(expect)?,
        })
    }

    /// Connects, asks once, and closes the connection.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(tcp::RESOLVING);
        match limited(shorter(self.timeout, left), &stage, self.exchange(&stage)).await {
            Err(failure) => Seen::bad(failure),
            Ok(Reply::Value(found)) => self.expect.judge(&found, begun.elapsed()),
            Ok(Reply::Error(error)) if WRONG_QUESTION.iter().any(|start| error.starts_with(start)) => {
                Seen::unclear(short(&error))
            }
            Ok(Reply::Error(error)) => Seen::bad(short(&error)),
        }
    }

    async fn exchange(&self, stage: &Stage) -> Result<Reply, String> {
        let stream = open(&self.address, self.tls.as_ref(), stage).await?;
        stage.set(tcp::WAITING);
        let mut stream = BufReader::new(stream);
        for command in &self.before {
            if let Reply::Error(error) = ask(&mut stream, command).await? {
                return Ok(Reply::Error(error));
            }
        }
        ask(&mut stream, &self.command).await
    }
}

/// Sends one command and reads its answer.
async fn ask<S>(stream: &mut BufReader<S>, command: &[String]) -> Result<Reply, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    stream.write_all(&bytes).await.map_err(|error| words(&error))?;
    stream.flush().await.map_err(|error| words(&error))?;
    reply(stream, 0).await
}

/// Reads one answer to its last byte.
async fn reply<S: AsyncBufRead + Unpin>(stream: &mut S, depth: usize) -> Result<Reply, String> {
    let foreign = || "the answer is not Redis".to_owned();
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await.map_err(|error| words(&error))?;
    if line.is_empty() {
        return Err("connection closed without an answer".to_owned());
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(foreign)?;
    let (kind, rest) = line.split_first().ok_or_else(foreign)?;
    let rest = String::from_utf8_lossy(rest).into_owned();
    let length = || match rest.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= LONGEST_ANSWER => Ok(Some(length)),
            Ok(_) => Err("the answer is longer than 4 MiB".to_owned()),
            Err(_) => Err(foreign()),
        },
        Err(_) => Err(foreign()),
    };
    Ok(Reply::Value(match kind {
        b'+' => Found::Text(rest),
        b'-' => return Ok(Reply::Error(rest)),
        b':' => Found::Typed(rest.parse::<i64>().map_err(|_| foreign())?.into()),
        b'$' => match length()? {
            None => Found::Nothing,
            Some(length) => {
                // Grown as it arrives: a length that is only claimed costs nothing.
                let mut bytes = Vec::new();
                let read = stream.take(length as u64 + 2).read_to_end(&mut bytes).await;
                read.map_err(|error| words(&error))?;
                if bytes.len() != length + 2 {
                    return Err("connection closed within the answer".to_owned());
                }
                bytes.truncate(length);
                Found::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        b'*' if depth >= DEEPEST => return Err("the answer is nested too deep".to_owned()),
        b'*' => match length()? {
            None => Found::Nothing,
            Some(length) => {
                let mut items = Vec::new();
                for _ in 0..length {
                    items.push(match Box::pin(reply(stream, depth + 1)).await? {
                        Reply::Value(Found::Text(text)) => Value::String(text),
                        Reply::Value(Found::Typed(value)) => value,
                        Reply::Value(Found::Nothing) => Value::Null,
                        Reply::Error(error) => return Ok(Reply::Error(error)),
                    });
                }
                Found::Typed(Value::Array(items))
            }
        },
        _ => return Err(foreign()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(reply(&mut &bytes[..], 0))
    }

    fn value(bytes: &[u8]) -> Found {
        match read(bytes) {
            Ok(Reply::Value(found)) => found,
            Ok(Reply::Error(error)) => panic!("{error}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn answers_keep_their_types() {
        assert_eq!(value(b"+PONG\r\n"), Found::Text("PONG".to_owned()));
        assert_eq!(value(b":-12\r\n"), Found::Typed((-12).into()));
        assert_eq!(value(b"$-1\r\n"), Found::Nothing);
        assert_eq!(value(b"$4\r\na\r\nb\r\n"), Found::Text("a\r\nb".to_owned()));
        assert_eq!(value(b"*3\r\n:1\r\n$1\r\nx\r\n$-1\r\n"), Found::Typed(serde_json::json!([1, "x", null])));
        assert!(matches!(read(b"-LOADING Redis\r\n"), Ok(Reply::Error(error)) if error == "LOADING Redis"));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (bytes, why) in [
            (&b""[..], "connection closed without an answer"),
            (b"HTTP/1.1 400 Bad Request\r\n", "the answer is not Redis"),
            (b"\x00\xff\xfe", "the answer is not Redis"),
            (b"$5\r\nab", "connection closed within the answer"),
            (b"$-2\r\n", "the answer is not Redis"),
            (b":five\r\n", "the answer is not Redis"),
            (b"$99999999999\r\n", "the answer is longer than 4 MiB"),
            (b"*2\r\n:1\r\n", "connection closed without an answer"),
        ] {
            assert!(matches!(read(bytes), Err(error) if error == why), "{why}");
        }
        let deep = "*1\r\n".repeat(DEEPEST + 1);
        assert!(matches!(read(deep.as_bytes()), Err(error) if error.contains("nested")));
    }
}
