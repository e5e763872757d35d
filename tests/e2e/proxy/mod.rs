//! The dependency proxy: the real binary, spoken to over loopback as its clients do.

mod api;
pub(crate) mod clients;
mod extensions;
mod grpc;
mod hostile;
mod http;
mod observations;
mod traffic;
mod verbs;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use squall_tests::squall::binary;
use squall_tests::wait::PATIENCE;

/// A running `squall proxy serve`, ended with this value.
struct Server {
    child: Child,
    api: SocketAddr,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("squall"));
        command.args(["proxy", "serve", "--port", "0"]).args(arguments);
        command.env_remove("LOG_LEVEL").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("squall can be started");
        let mut log = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        let api = loop {
            line.clear();
            let length = log.read_line(&mut line).expect("the log can be read");
            assert!(length > 0, "the proxy ended before it said where it listens");
            let said: Value = serde_json::from_str(&line).expect("the log is JSON");
            if let Some(address) = said["address"].as_str() {
                break address.parse().expect("an address");
            }
        };
        // Nobody reads on: the pipe must not fill up.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Server { child, api }
    }

    /// Sends a request on a connection of its own. The status, the headers and the body of the answer.
    fn raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.api).expect("the interface listens");
        stream.set_read_timeout(Some(PATIENCE * 3)).expect("a time-out can be set");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the head can be sent");
        // It may have been refused already.
        let _ = stream.write_all(body);
        answer(&mut stream)
    }

    /// The status and the body as JSON.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, _, body) = self.raw(method, path, "", &bytes);
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// A request that must succeed.
    #[track_caller]
    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path} {body}: {status} {answer}");
        answer
    }

    /// A proxy to an address; where it listens.
    #[track_caller]
    fn proxy(&self, name: &str, upstream: SocketAddr) -> SocketAddr {
        let wanted = json!({ "name": name, "listen": "127.0.0.1:0", "upstream": upstream.to_string() });
        let made = self.done("POST", "/proxies", &wanted);
        made["listen"]
            .as_str()
            .and_then(|listen| listen.parse().ok())
            .expect("the real address is in the answer")
    }

    /// A toxic on a proxy.
    #[track_caller]
    fn toxic(&self, proxy: &str, kind: &str, stream: &str, attributes: Value) {
        let wanted = json!({ "type": kind, "stream": stream, "attributes": attributes });
        self.done("POST", &format!("/proxies/{proxy}/toxics"), &wanted);
    }

    /// That it still works: it makes a proxy, carries bytes and removes it.
    #[track_caller]
    fn works(&self) {
        let echo = echo();
        let listen = self.proxy("works", echo);
        ping(&mut connect(listen));
        self.done("DELETE", "/proxies/works", &Value::Null);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to its end.
fn answer(stream: &mut TcpStream) -> (u16, String, String) {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head:?}")), head.to_lowercase(), body.to_owned())
}

/// Serves every connection in a thread of its own until the test process ends.
fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                each(stream);
            });
        }
    });
    address
}

/// Sends back what it receives; at the end of it `bye`, and its own end.
fn echo() -> SocketAddr {
    serve(|mut stream| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye");
        let _ = stream.shutdown(Shutdown::Both);
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the proxy listens");
    stream.set_nodelay(true).expect("an option can be set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    stream
}

/// A byte there and back.
#[track_caller]
fn ping(stream: &mut TcpStream) -> Duration {
    let begun = std::time::Instant::now();
    stream.write_all(b"x").expect("the byte can be sent");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("the byte comes back");
    assert_eq!(&byte, b"x");
    begun.elapsed()
}
