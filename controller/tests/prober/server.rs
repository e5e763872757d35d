//! Small real servers on loopback. Each answers every connection in a thread of its own, as it was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Serves connections; `answer` gets the stream, the request head, and how many came before.
pub fn serve(answer: impl Fn(&mut TcpStream, &str, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, count) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, count) = (answer.clone(), count.clone());
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let head = head(&mut stream);
                answer(&mut stream, &head, count.fetch_add(1, Ordering::SeqCst));
            });
        }
    });
    address
}

/// Answers every request with the same bytes, and closes.
pub fn always(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = bytes.into();
    serve(move |stream, _, _| {
        let _ = stream.write_all(&bytes);
    })
}

/// Answers request after request on each connection; `answer` gets how many came before, over all connections.
pub fn kept(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Kept {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Kept { address, connections: Arc::default(), requests: Arc::default() };
    let (answer, counts) = (Arc::new(answer), kept.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counts.connections.fetch_add(1, Ordering::SeqCst);
            let (answer, counts) = (answer.clone(), counts.clone());
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                    if line == "\r\n" {
                        let answer = answer(counts.requests.fetch_add(1, Ordering::SeqCst));
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    kept
}

/// A server of [`kept`], and what came to it.
#[derive(Clone)]
pub struct Kept {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

/// An HTTP answer.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Takes connections and never says a word.
pub fn silent() -> SocketAddr {
    serve(|stream, _, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// A loopback address on which nothing listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Serves `200 OK` over TLS.
pub fn tls(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let key = certificate.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(session, stream.unwrap());
                let mut first = [0; 1024];
                // A client that does not trust us goes away here.
                if stream.read(&mut first).is_ok() {
                    let _ = stream.write_all(answer("200 OK", "", "over TLS").as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
        }
    });
    address
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
