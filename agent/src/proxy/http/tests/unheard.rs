//! Requests that the dependency never hears of: what was sent is known all the same, and their connection goes on.

use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

/// Its answer's first line; what follows is read to its end.
async fn answered(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("it is answered, and not reset");
        read.push(byte[0]);
        if read.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(read).expect("text");
    let length = head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().and_then(|length| length.parse().ok()).expect("a length")
    });
    stream.read_exact(&mut vec![0; length]).await.expect("a body");
    head.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn what_is_sent_again_can_be_told_although_a_fault_answers() {
    run(async {
        let world = World::new().await;
        world.toxic("http_status", "downstream", &json!({ "status": 503, "grpc": 14 }), Value::Null);
        let mut first = world.first().await;
        for body in ["one", "one", "two"] {
            first.ready().await.expect("it stays open");
            let response = first.send_request(post("/pay", body)).await.expect("an answer");
            assert_eq!(response.status(), 503);
            text(response).await.expect("a body");
        }
        let mut second = world.second().await;
        for body in ["one", "one", "two"] {
            let response = second.send_request(over_second("/pay", body)).await.expect("an answer");
            assert_eq!(response.headers()["grpc-status"], "14");
            text(response).await.expect("a body");
        }
        let mut seen = world.seen(6).await;
        seen.sort_by_key(|request| (request["connection"].as_u64(), request["request"].as_u64()));
        assert_eq!(world.asked.load(Ordering::Relaxed), 0);
        for seen in seen.chunks(3) {
            assert_ne!(seen[0]["fingerprint"], "", "{seen:?}");
            assert_eq!(seen[0]["fingerprint"], seen[1]["fingerprint"]);
            assert_ne!(seen[0]["fingerprint"], seen[2]["fingerprint"]);
            assert_eq!(seen[0]["body_hash"], seen[1]["body_hash"]);
            assert_ne!(seen[0]["body_hash"], seen[2]["body_hash"]);
            assert!(seen.iter().all(|request| request["request_bytes"] == 3), "{seen:?}");
            assert!(seen.iter().all(|request| request["request_end_us"].as_u64() > Some(0)), "{seen:?}");
        }
    });
}

#[test]
fn a_connection_goes_on_behind_a_body_that_is_late_and_that_nobody_is_given() {
    run(async {
        let kinds = [
            ("http_status", "downstream", json!({ "status": 429 }), "HTTP/1.1 429 Too Many Requests"),
            ("http_body", "upstream", json!({ "replace": "other" }), "HTTP/1.1 200 OK"),
        ];
        for (kind, stream, attributes, expected) in kinds {
            let world = World::new().await;
            world.toxic(kind, stream, &attributes, json!({ "method": "POST" }));
            let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
            let body = vec![b'x'; 1 << 20];
            let head = format!("POST /pay HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.write_all(&body).await.expect("it is read");
            assert_eq!(answered(&mut stream).await, expected, "{kind}");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.expect("it is open");
            assert_eq!(answered(&mut stream).await, "HTTP/1.1 200 OK", "{kind}");
        }
    });
}

#[test]
fn a_call_that_waits_for_an_answer_before_it_says_more_gets_one() {
    run(async {
        let world = World::new().await;
        world.toxic("grpc_status", "downstream", &json!({ "status": 14 }), Value::Null);
        let mut sender = world.second().await;
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| said.poll_recv(cx)));
        let request = Request::post("http://shop/shop.Chat/Talk").header("content-type", "application/grpc");
        let request = request.body(body.boxed_unsync()).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.headers()["grpc-status"], "14");
        // It is still listened to.
        say.send(Ok(Frame::data(Bytes::from_static(b"late")))).expect("its body is not over");
        drop(say);
        let seen = world.seen(1).await;
        assert_eq!((&seen[0]["request_bytes"], &seen[0]["how"]), (&json!(4), &json!("answered")), "{seen:?}");
        assert_ne!(seen[0]["fingerprint"], "", "{seen:?}");
    });
}
