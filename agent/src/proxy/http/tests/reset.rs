//! How a dependency goes away is how a client sees it go away, although somebody reads what they say in between.

use std::io;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// What a dependency says to whoever has said something, and how it goes away then.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Reset,
    Ends,
}

/// A proxy for HTTP in front of one that says this and goes away when it is told.
async fn before(said: &'static [u8], leaving: Leaving, told: Arc<Notify>) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the proxy connects");
        let mut asked = [0; 1024];
        let _ = stream.read(&mut asked).await;
        let _ = stream.write_all(said).await;
        told.notified().await;
        if let Leaving::Reset = leaving {
            stream.set_zero_linger().expect("it is a socket");
        }
    });
    World::before(upstream, Arc::default(), Wanted { protocol: "http".to_owned(), ..Wanted::default() })
}

#[test]
fn a_reset_of_the_dependency_is_a_reset_and_its_end_an_end() {
    run(async {
        let get = &b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"[..];
        let half = &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"[..];
        let whole = &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalf"[..];
        for (asked, said) in [(get, &b""[..]), (get, half), (get, whole), (b"\x16\x03", b"\x15\x03")] {
            for leaving in [Leaving::Reset, Leaving::Ends] {
                let told = Arc::new(Notify::new());
                let world = before(said, leaving, told.clone()).await;
                let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
                stream.write_all(asked).await.expect("it takes it");
                let (mut came, mut buffer) = (Vec::new(), [0; 1024]);
                while !came.ends_with(&said[said.len().saturating_sub(4)..]) {
                    let length = stream.read(&mut buffer).await.expect("what was said before");
                    came.extend_from_slice(&buffer[..length]);
                    assert!(length > 0, "{leaving:?}: an end after {came:?}");
                }
                // What was said has arrived; a reset would overtake it.
                told.notify_one();
                let ended = stream.read(&mut buffer).await;
                match leaving {
                    Leaving::Ends => assert_eq!(ended.expect("an orderly end"), 0, "{said:?}"),
                    Leaving::Reset => {
                        let error = ended.expect_err("a reset");
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{said:?}");
                    }
                }
            }
        }
    });
}

/// What a dependency says of a connection.
#[derive(Debug, PartialEq)]
enum Told {
    /// Something was asked.
    Asked,
    /// It ended: with an error of this kind, or without one.
    Ended(Option<io::ErrorKind>),
}

/// A dependency that answers nothing but who wants to chat, and says what becomes of its connections.
async fn told_of_ends() -> (SocketAddr, UnboundedReceiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("an address");
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                if buffer[..length].starts_with(b"GET /chat") {
                    let agreed =
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n";
                    let _ = stream.write_all(agreed).await;
                }
                let _ = tell.send(Told::Asked);
                let end = loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => break None,
                        Ok(_) => {}
                        Err(error) => break Some(error.kind()),
                    }
                };
                let _ = tell.send(Told::Ended(end));
            });
        }
    });
    (upstream, told)
}

#[test]
fn a_reset_of_the_client_is_a_reset_and_its_end_an_end() {
    run(async {
        let (upstream, mut told) = told_of_ends().await;
        let wanted = Wanted { protocol: "http".to_owned(), ..Wanted::default() };
        let world = World::before(upstream, Arc::default(), wanted);
        let chat = &b"GET /chat HTTP/1.1\r\nHost: shop\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n"[..];
        // A request, half of one, another protocol on both sides, and none at all.
        let half = &b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhalf"[..];
        let get = &b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"[..];
        for asked in [get, half, chat, b"\x16\x03"] {
            for resets in [true, false] {
                // Who has asked and ends its half waits for the answer.
                if asked == get && !resets {
                    continue;
                }
                let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
                stream.write_all(asked).await.expect("it takes it");
                if asked == chat {
                    // To its end: who goes away with something unread resets the connection.
                    let mut agreed = Vec::new();
                    while !agreed.ends_with(b"\r\n\r\n") {
                        agreed.push(stream.read_u8().await.expect("an answer"));
                    }
                    assert!(agreed.starts_with(b"HTTP/1.1 101"));
                }
                let mut said =
                    async || tokio::time::timeout(PATIENCE, told.recv()).await.expect("it is told");
                assert_eq!(said().await, Some(Told::Asked));
                if resets {
                    stream.set_zero_linger().expect("it is a socket");
                }
                drop(stream);
                let kind = resets.then_some(io::ErrorKind::ConnectionReset);
                assert_eq!(said().await, Some(Told::Ended(kind)), "{:?}", String::from_utf8_lossy(asked));
            }
        }
    });
}

#[test]
fn a_stream_that_the_dependency_resets_is_reset_and_its_neighbours_go_on() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let upstream = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("the proxy connects");
            let service = service_fn(async |request: Request<Incoming>| {
                if request.uri().path() == "/bad" { Err(Broken::Cut) } else { Ok(Response::new(empty())) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        let wanted = Wanted { protocol: "http".to_owned(), ..Wanted::default() };
        let world = World::before(upstream, Arc::default(), wanted);
        let mut sender = world.second().await;
        for _ in 0..2 {
            let error = sender.send_request(over_second("/bad", "x")).await.expect_err("a reset");
            assert!(format!("{error:?}").contains("Reset"), "{error:?}");
            let answer = sender.send_request(over_second("/", "x")).await.expect("the connection lives");
            assert_eq!(answer.status(), 200);
        }
    });
}
