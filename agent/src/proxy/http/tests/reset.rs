//! How a dependency goes away is how a client sees it go away, although somebody reads what they say in between.

use std::io;

use tokio::sync::Notify;

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
