//! What is not HTTP, where HTTP is to be understood.

use super::*;

/// A proxy for HTTP, with a fault for every request, in front of who sends back what it is sent after it has said this.
async fn before(greeting: &'static [u8]) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = writer.write_all(greeting).await;
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    let wanted = Wanted { protocol: "http".to_owned(), ..Wanted::default() };
    let world = World::before(upstream, Arc::default(), wanted);
    world.toxic("http_status", "downstream", &json!({ "status": 500 }), Value::Null);
    world
}

#[test]
fn it_is_carried_as_it_is_and_counted() {
    run(async {
        let hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        for (greeting, said) in [(&b""[..], hello), (b"+OK ready\r\n", b"USER me\r\n")] {
            let world = before(greeting).await;
            let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
            let mut came = vec![0; greeting.len()];
            stream.read_exact(&mut came).await.expect("the greeting");
            stream.write_all(said).await.expect("it takes it");
            stream.shutdown().await.expect("half of it is closed");
            stream.read_to_end(&mut came).await.expect("an orderly end");
            assert_eq!(came, [greeting, said].concat());
            let counters = world.control.get("shop").expect("it is there").counters;
            let (foreign, requests) = (&counters.foreign, &counters.requests);
            assert_eq!((foreign.load(Ordering::Relaxed), requests.load(Ordering::Relaxed)), (1, 0));
        }
    });
}

#[test]
fn a_toxic_for_what_is_not_http_leaves_requests_alone_and_the_other_way_round() {
    run(async {
        let world = World::new().await;
        let toxic = |kind: &str, attributes: Value, foreign: bool| {
            let attributes = attributes.as_object().cloned().unwrap_or_default();
            let wanted = WantedToxic { kind: kind.to_owned(), attributes, foreign, ..WantedToxic::default() };
            world.control.add_toxic("shop", &wanted).expect("a toxic").hits
        };
        let of_bytes = toxic("latency", json!({ "latency": 1 }), true);
        let of_requests = toxic("http_delay", json!({ "delay": 1 }), false);
        let hits = || (of_bytes.load(Ordering::Relaxed) > 0, of_requests.load(Ordering::Relaxed));
        for _ in 0..2 {
            let mut sender = world.first().await;
            sender.send_request(post("/", "paid")).await.expect("an answer");
        }
        assert_eq!(hits(), (false, 2));
        // The dependency speaks HTTP only, and says so.
        let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
        stream.write_all(b"\x16hello\r\n\r\n").await.expect("it takes it");
        let mut came = Vec::new();
        stream.read_to_end(&mut came).await.expect("an orderly end");
        assert!(came.starts_with(b"HTTP/1.1 400"), "{}", came.escape_ascii());
        assert_eq!(hits(), (true, 2));
    });
}
