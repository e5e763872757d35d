//! As much of a browser as the tests of pages need: cookies, forms with their proof, one request a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

pub(crate) struct Browser {
    at: SocketAddr,
    pub(crate) cookies: BTreeMap<String, String>,
    /// What its forms bring back.
    pub(crate) proof: String,
    /// Further headers of every request.
    pub(crate) more: String,
}

impl Browser {
    pub(crate) fn new(at: SocketAddr) -> Self {
        Browser { at, cookies: BTreeMap::new(), proof: String::new(), more: String::new() }
    }

    pub(crate) async fn sign_in(&mut self, token: &str) {
        self.get("/sign-in").await;
        let answer = self.post("/sign-in", &[("token", token), ("to", "/")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{answer:?}");
        assert_eq!(self.get("/").await.status, 200);
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nAccept: text/html\r\n");
        self.ask(&request, "").await
    }

    /// Posts a form with the proof that the last page gave.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let proof = self.proof.clone();
        let fields = [fields, &[("proof", proof.as_str())]].concat();
        self.post_without_proof(path, &fields).await
    }

    pub(crate) async fn post_without_proof(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = format!(
            "POST {path} HTTP/1.1\r\nAccept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        self.ask(&request, &body).await
    }

    async fn ask(&mut self, request: &str, body: &str) -> Answer {
        let mut stream = self.begin(request, body).await;
        let mut answer = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let read = stream.read(&mut piece).await.expect("an answer");
            answer.extend_from_slice(&piece[..read]);
            // Events go on for ever.
            let text = String::from_utf8_lossy(&answer);
            if read == 0 || (text.contains("text/event-stream") && text.contains("\r\n\r\n")) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(header).collect();
        for (_, cookie) in headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) =
                cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            match value {
                "" => drop(self.cookies.remove(name)),
                value => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        if let Some(proof) =
            body.split("name=\"proof\" value=\"").nth(1).and_then(|rest| rest.split('"').next())
        {
            self.proof = proof.to_owned();
        }
        Answer { status, headers, body: body.to_owned() }
    }

    /// Sends a request; gives the connection on which its answer comes.
    pub(crate) async fn begin(&self, request: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let head = format!(
            "{request}Host: {}\r\nCookie: {}\r\n{}Connection: close\r\n\r\n",
            self.at,
            cookies.join("; "),
            self.more
        );
        stream.write_all((head + body).as_bytes()).await.expect("it reads");
        stream
    }
}
